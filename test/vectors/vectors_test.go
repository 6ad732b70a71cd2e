package vectors_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

var update = flag.Bool("update", false, "write the vectors again")

// vector is one input in hex, and "ok" or the class by which it is refused.
type vector struct {
	Name   string `json:"name"`
	Kind   string `json:"kind,omitzero"`
	Input  string `json:"input"`
	Expect string `json:"expect"`
}

func v(kind, name, input, expect string) vector {
	return vector{Name: name, Kind: kind, Input: hex.EncodeToString([]byte(input)), Expect: expect}
}

func forms() []vector {
	const bad = string(failure.FieldInvalid)
	h := strings.Repeat("0a", 32)
	return []vector{
		v("id", "shortest", "a", "ok"), v("id", "longest", strings.Repeat("a", 63), "ok"), v("id", "too long", strings.Repeat("a", 64), bad),
		v("id", "hyphen first", "-a", bad), v("id", "capital", "A", bad), v("id", "newline after", "a\n", bad),
		v("uuid", "lower case", "01234567-89ab-cdef-0123-456789abcdef", "ok"), v("uuid", "capitals", "01234567-89AB-CDEF-0123-456789ABCDEF", bad),
		v("digest", "good", "sha256:"+h, "ok"), v("digest", "bare", h, bad), v("digest", "capitals", "sha256:"+strings.ToUpper(h), bad),
		v("time", "leap day", "2024-02-29T00:00:00Z", "ok"), v("time", "no leap day", "2026-02-29T00:00:00Z", bad),
		v("time", "second 60", "2026-12-31T23:59:60Z", bad), v("time", "small z", "2026-01-02T03:04:05z", bad), v("time", "offset", "2026-01-02T03:04:05+00:00", bad),
		v("text80", "80 code points", strings.Repeat("𝄞", 80), "ok"), v("text80", "81", strings.Repeat("a", 81), bad),
		v("text80", "newline and tab", "\n\t", "ok"), v("text80", "CR", "\r", bad), v("text80", "override", "\u202e", bad), v("text80", "bad UTF-8", "\xff", bad),
	}
}

func foreign() []vector {
	const bad = string(failure.PayloadMalformed)
	deep := func(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }
	return []vector{
		v("", "null and numbers", `{"a":null,"b":-1.5e9}`, "ok"), v("", "duplicate", `{"a":1,"\u0061":1}`, bad), v("", "BOM", "\ufeff{}", bad),
		v("", "depth 16", deep(16), "ok"), v("", "depth 17", deep(17), bad), v("", "array", "[]", bad), v("", "two", "{}{}", bad),
	}
}

func envelopes() []vector {
	const bad = string(failure.EnvelopeMalformed)
	key := strings.Repeat("a", 64)
	wire := func(payload, sig string) string {
		return `{"payload":"` + payload + `","payloadType":"t","signatures":[` + sig + `]}`
	}
	sig := `{"keyid":"` + key + `","sig":"AQ=="}`
	return []vector{
		v("", "one signature", wire("e30=", sig), "ok"), v("", "none", wire("e30=", ""), bad), v("", "one key twice", wire("e30=", sig+","+sig), bad),
		v("", "newline in base64", wire(`e3\n0=`, sig), bad), v("", "unpadded", wire("e30", sig), bad), v("", "url alphabet", wire("-_-_", sig), bad),
		v("", "trailing bits", wire("e31=", sig), bad), v("", "unknown member", strings.Replace(wire("e30=", sig), "{", `{"x":1,`, 1), bad),
	}
}

func spki() []vector {
	const bad = string(failure.FieldInvalid)
	ed := "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"
	base := "\x58" + strings.Repeat("\x66", 31)
	return []vector{
		v("", "Ed25519 base point", ed+base, "ok"), v("", "identity", ed+"\x01"+strings.Repeat("\x00", 31), bad),
		v("", "order 4", ed+strings.Repeat("\x00", 32), bad), v("", "trailing byte", ed+base+"\x00", bad), v("", "empty", "", bad),
	}
}

func judgeForm(kind string, in []byte) error {
	switch kind {
	case "id":
		return new(envelope.ID).UnmarshalText(in)
	case "uuid":
		return new(envelope.UUID).UnmarshalText(in)
	case "digest":
		return new(envelope.Digest).UnmarshalText(in)
	case "time":
		return new(envelope.Time).UnmarshalText(in)
	case "text80":
		return envelope.CheckText("text", string(in), 80)
	}
	return failure.New("unknown_kind", "no judge for kind %q", kind)
}

func TestVectors(t *testing.T) {
	for name, set := range map[string]struct {
		vectors []vector
		judge   func(kind string, in []byte) error
	}{
		"forms.json":    {forms(), judgeForm},
		"foreign.json":  {foreign(), func(_ string, in []byte) error { return envelope.CheckForeign(in) }},
		"envelope.json": {envelopes(), func(_ string, in []byte) error { _, err := envelope.Parse(in); return err }},
		"spki.json":     {spki(), func(_ string, in []byte) error { _, err := signer.ParsePublicKey(in); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := json.Marshal(set.vectors, jsontext.WithIndent("  "))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, '\n')
			if *update {
				if err := os.WriteFile(name, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			data, err := os.ReadFile(name)
			if err != nil || !bytes.Equal(data, want) {
				t.Fatalf("the file differs from what is generated (go test -update): %v", err)
			}
			var stored []vector
			if err := json.Unmarshal(data, &stored); err != nil {
				t.Fatal(err)
			}
			for _, s := range stored {
				in, err := hex.DecodeString(s.Input)
				if err != nil {
					t.Fatal(err)
				}
				got := "ok"
				if err := set.judge(s.Kind, in); err != nil {
					got = string(failure.ClassOf(err))
				}
				if got != s.Expect {
					t.Errorf("%s %s: got %s, want %s", s.Kind, s.Name, got, s.Expect)
				}
			}
		})
	}
}
