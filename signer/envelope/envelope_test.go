package envelope_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

type sample struct {
	Decision string `json:"decision"`
	Flag     bool   `json:"flag,omitzero"`
	Number   int64  `json:"number"`
	Skip     string `json:"skip,omitzero"`
}

func TestDecodeCanonical(t *testing.T) {
	body := func(number string) string { return `{"decision":"yes","number":` + number + `}` }
	malformed, notCanonical := failure.PayloadMalformed, failure.PayloadNotCanonical
	for name, c := range map[string]struct {
		data string
		want []failure.Class // any of; which is named first is diagnostic
	}{
		"good":            {body("1"), nil},
		"optional true":   {`{"decision":"yes","flag":true,"number":1}`, nil},
		"optional false":  {`{"decision":"yes","flag":false,"number":1}`, []failure.Class{malformed}},
		"optional null":   {`{"decision":"yes","flag":null,"number":1}`, []failure.Class{malformed}},
		"required null":   {`{"decision":null,"number":1}`, []failure.Class{malformed}},
		"missing":         {`{"number":1}`, []failure.Class{malformed}},
		"unknown":         {`{"decision":"yes","number":1,"other":1}`, []failure.Class{malformed}},
		"duplicate":       {`{"decision":"no","decision":"yes","number":1}`, []failure.Class{malformed}},
		"duplicate, esc.": {`{"decision":"no","\u0064ecision":"yes","number":1}`, []failure.Class{malformed}},
		"case folding":    {`{"DECISION":"yes","number":1}`, []failure.Class{malformed}},
		"long s":          {"{\"deci\u017fion\":\"yes\",\"number\":1}", []failure.Class{malformed}},
		"beside":          {`{"DECISION":"no","decision":"yes","number":1}`, []failure.Class{malformed}},
		"unsorted":        {`{"number":1,"decision":"yes"}`, []failure.Class{notCanonical}},
		"space":           {`{"decision": "yes","number":1}`, []failure.Class{notCanonical}},
		"newline after":   {body("1") + "\n", []failure.Class{notCanonical}},
		"two values":      {body("1") + body("1"), []failure.Class{malformed}},
		"trailing NUL":    {body("1") + "\x00", []failure.Class{malformed}},
		"BOM":             {"\ufeff" + body("1"), []failure.Class{malformed}},
		"bad UTF-8":       {"{\"decision\":\"\xff\",\"number\":1}", []failure.Class{malformed}},
		"lone surrogate":  {`{"decision":"\ud800","number":1}`, []failure.Class{malformed}},
		"needless escape": {`{"decision":"\u0079es","number":1}`, []failure.Class{notCanonical}},
		"minus zero":      {body("-0"), []failure.Class{notCanonical, malformed}},
		"1.0":             {body("1.0"), []failure.Class{notCanonical, malformed}},
		"1e3":             {body("1e3"), []failure.Class{notCanonical, malformed}},
		"1.5":             {body("1.5"), []failure.Class{failure.FieldInvalid}},
		"01":              {body("01"), []failure.Class{malformed}},
		"2^53-1":          {body("9007199254740991"), nil},
		"2^53":            {body("9007199254740992"), []failure.Class{malformed, failure.FieldInvalid}},
		"2^53+1":          {body("9007199254740993"), []failure.Class{notCanonical, malformed}},
		"-1":              {body("-1"), []failure.Class{malformed, failure.FieldInvalid}},
		"string number":   {body(`"1"`), []failure.Class{malformed}},
		"array":           {`[]`, []failure.Class{malformed}},
		"null":            {`null`, []failure.Class{malformed}},
		"empty":           {``, []failure.Class{malformed}},
		"too long":        {`{"decision":"` + strings.Repeat("a", envelope.MaxPayload) + `","number":1}`, []failure.Class{malformed}},
	} {
		var v sample
		err := envelope.DecodeCanonical([]byte(c.data), envelope.MaxPayload, &v)
		if len(c.want) == 0 {
			wantClass(t, name, err, "")
			continue
		}
		ok := false
		for _, want := range c.want {
			ok = ok || failure.ClassOf(err) == want
		}
		if !ok {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// A refusal is read by people: it names the member, not a type of Go.
func TestMisfit(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for data, want := range map[string]string{
		`[]`:                           `a value of another kind is expected at "/"`,
		`{"payload":1}`:                `a value of another kind is expected at "/payload"`,
		`{"signatures":[{"key":1}]}`:   `unknown member "/signatures/0/key"`,
		`{"signatures":[{"sig":"*"}]}`: `a value of another kind is expected at "/signatures/0/sig"`,
		`{"signatures":[{"keyid":"` + digest + `"}]}`: `"` + digest + `" is not a KeyID of 64 lower-case hexadecimal digits`,
	} {
		_, parseErr := envelope.Parse([]byte(data))
		for _, err := range []error{parseErr, envelope.DecodeCanonical([]byte(data), envelope.MaxPayload, &envelope.Envelope{})} {
			if got := failure.DetailOf(err); got != want {
				t.Errorf("%s: %q, not %q", data, got, want)
			}
		}
	}
}

func nested(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }

func TestCanonicalNesting(t *testing.T) {
	for depth, want := range map[int]failure.Class{16: "", 17: failure.PayloadMalformed} {
		var v map[string]any
		wantClass(t, fmt.Sprint("depth ", depth), envelope.DecodeCanonical([]byte(nested(depth)), envelope.MaxPayload, &v), want)
	}
}

func TestCheckForeign(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		ok   bool
	}{
		"unknown, null, numbers": {`{"Type":1,"type":null,"x":-1.5e300}`, true},
		"any layout":             {" {\n} \n", true},
		"depth 16":               {nested(16), true},
		"depth 17":               {nested(17), false},
		"arrays, depth 17":       {`{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, false},
		"duplicate":              {`{"type":1,"type":1}`, false},
		"duplicate below":        {`{"a":{"b":1,"\u0062":1}}`, false},
		"BOM":                    {"\ufeff{}", false},
		"bad UTF-8":              {"{\"a\":\"\xc3\"}", false},
		"two values":             {"{}{}", false},
		"array":                  {"[]", false},
		"number":                 {"1", false},
		"empty":                  {"", false},
		"cut off":                {`{"a":1`, false},
		"longest":                {`{}` + strings.Repeat(" ", envelope.MaxPayload-2), true},
		"too long":               {`{}` + strings.Repeat(" ", envelope.MaxPayload-1), false},
	} {
		want := failure.PayloadMalformed
		if c.ok {
			want = ""
		}
		wantClass(t, name, envelope.CheckForeign([]byte(c.data)), want)
	}
}

var keyA, keyB = strings.Repeat("a", 64), strings.Repeat("b", 64)

func wire(payload string, signatures ...string) string {
	return `{"payload":"` + payload + `","payloadType":"t","signatures":[` + strings.Join(signatures, ",") + `]}`
}

func sigObject(key, sig string) string { return `{"keyid":"` + key + `","sig":"` + sig + `"}` }

func TestParse(t *testing.T) {
	one := sigObject(keyA, "AQ==")
	many := func(n int) (all []string) {
		for i := range n {
			all = append(all, sigObject(fmt.Sprintf("%064x", i), "AQ=="))
		}
		return all
	}
	for name, c := range map[string]struct {
		wire string
		ok   bool
	}{
		"one":                  {wire("e30=", one), true},
		"any layout":           {" {\"signatures\": [" + one + "],\n \"payloadType\":\"t\", \"payload\":\"e30=\"}\n", true},
		"two keys":             {wire("e30=", one, sigObject(keyB, "AQ==")), true},
		"64 signatures":        {wire("e30=", many(64)...), true},
		"65 signatures":        {wire("e30=", many(65)...), false},
		"none":                 {wire("e30="), false},
		"one key twice":        {wire("e30=", one, sigObject(keyA, "Ag==")), false},
		"newline in base64":    {wire(`e3\n0=`, one), false},
		"CR in base64":         {wire(`e3\r0=`, one), false},
		"newline in sig":       {wire("e30=", sigObject(keyA, `AQ==\n`)), false},
		"unpadded":             {wire("e30", one), false},
		"url alphabet":         {wire("-_-_", one), false},
		"standard alphabet":    {wire("+/+/", one), true},
		"trailing bits":        {wire("e31=", one), false},
		"upper-case keyid":     {wire("e30=", sigObject(strings.ToUpper(keyA), "AQ==")), false},
		"no sig":               {wire("e30=", `{"keyid":"`+keyA+`"}`), false},
		"null sig":             {wire("e30=", `{"keyid":"`+keyA+`","sig":null}`), false},
		"extra in signature":   {wire("e30=", `{"cert":"","keyid":"`+keyA+`","sig":"AQ=="}`), false},
		"extra in envelope":    {strings.Replace(wire("e30=", one), "{", `{"x":1,`, 1), false},
		"payload twice":        {strings.Replace(wire("e30=", one), "{", `{"payload":"",`, 1), false},
		"case folding":         {strings.Replace(wire("e30=", one), "payloadType", "PayloadType", 1), false},
		"webauthn null":        {wire("e30=", `{"keyid":"`+keyA+`","sig":"AQ==","webauthn":null}`), false},
		"webauthn empty":       {wire("e30=", `{"keyid":"`+keyA+`","sig":"AQ==","webauthn":{}}`), false},
		"webauthn":             {wire("e30=", `{"keyid":"`+keyA+`","sig":"AQ==","webauthn":{"authenticatorData":"AQ==","clientDataJSON":"e30="}}`), true},
		"webauthn, extra":      {wire("e30=", `{"keyid":"`+keyA+`","sig":"AQ==","webauthn":{"authenticatorData":"AQ==","clientDataJSON":"e30=","x":1}}`), false},
		"two values":           {wire("e30=", one) + "{}", false},
		"BOM":                  {"\ufeff" + wire("e30=", one), false},
		"null":                 {"null", false},
		"payload over 64 KiB":  {wire(strings.Repeat("AAAA", 22000), one), false},
		"over the wire's size": {wire("e30=", one) + strings.Repeat(" ", envelope.MaxWire), false},
	} {
		env, err := envelope.Parse([]byte(c.wire))
		want := failure.EnvelopeMalformed
		if c.ok {
			want = ""
		}
		wantClass(t, name, err, want)
		if c.ok && err == nil {
			again, err := envelope.Parse(env.Bytes())
			if err != nil || !bytes.Equal(again.Bytes(), env.Bytes()) {
				t.Errorf("%s: the canonical form does not parse to itself: %v", name, err)
			}
		}
	}
}

func TestSealAndPAE(t *testing.T) {
	if got := string(envelope.PAE("tä", []byte("a b"))); got != "DSSEv1 3 tä 3 a b" {
		t.Errorf("PAE is %q", got)
	}
	s := registrytest.Key(signer.ECDSAP256SHA256)
	env, err := envelope.Seal(context.Background(), s, envelope.TypeApproval, sample{Decision: "yes", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := env.Single()
	if err != nil || string(env.Payload) != `{"decision":"yes","number":1}` {
		t.Fatalf("%q, %v", env.Payload, err)
	}
	if err := signer.Verify(s.Algorithm(), s.Public(), env.PAE(), sig.Sig); err != nil {
		t.Error(err)
	}
	wantClass(t, "other type", env.Expect(envelope.TypeRejection), failure.WrongPayloadType)
	env.Signatures = append(env.Signatures, envelope.Signature{KeyID: envelope.KeyID(keyA)})
	_, err = env.Single()
	wantClass(t, "two signatures", err, failure.EnvelopeMalformed)
	_, err = envelope.Seal(context.Background(), s, "t", sample{Decision: strings.Repeat("a", envelope.MaxPayload)})
	wantClass(t, "too long", err, failure.PayloadMalformed)
}

// FuzzParseEnvelope: what parses has one canonical form, which parses to itself.
func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte(wire("e30=", sigObject(keyA, "AQ=="))))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := envelope.Parse(data)
		if err != nil {
			return
		}
		again, err := envelope.Parse(env.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), env.Bytes()) {
			t.Fatalf("%q does not parse to itself: %v", env.Bytes(), err)
		}
	})
}

// FuzzDecodeCanonical: what parses writes again to the same bytes.
func FuzzDecodeCanonical(f *testing.F) {
	f.Add([]byte(`{"decision":"yes","flag":true,"number":9007199254740991,"skip":"a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v sample
		if envelope.DecodeCanonical(data, envelope.MaxPayload, &v) != nil {
			return
		}
		if again, err := envelope.Canonical(v); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q writes as %q, %v", data, again, err)
		}
	})
}

// FuzzCheckForeign: what is accepted is one JSON object that decodes.
func FuzzCheckForeign(f *testing.F) {
	f.Add([]byte(nested(16)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if envelope.CheckForeign(data) != nil {
			return
		}
		var v map[string]any
		if err := envelope.DecodeForeign(data, &v); err != nil || v == nil {
			t.Fatalf("accepted, yet it does not decode: %v", err)
		}
	})
}
