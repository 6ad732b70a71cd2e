package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

type witness struct {
	auditlog.Witness
	private ed25519.PrivateKey
}

func newWitness(t testing.TB, name string) witness {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return witness{auditlog.Witness{Name: name, Key: public}, private}
}

func (w witness) vkey() string {
	return fmt.Sprintf("%s+%08x+%s", w.Name, w.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{4}, w.Key...)))
}

// cosign adds the witness's line, made as C2SP tlog-cosignature says.
func (w witness) cosign(text string, seconds uint64) string {
	body, _, _ := strings.Cut(text, "\n\n")
	blob := binary.BigEndian.AppendUint32(nil, w.KeyHash())
	blob = binary.BigEndian.AppendUint64(blob, seconds)
	blob = append(blob, ed25519.Sign(w.private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", seconds, body))...)
	return text + "— " + w.Name + " " + base64.StdEncoding.EncodeToString(blob) + "\n"
}

func newCheckpoint(t testing.TB) (string, keyregistry.Key) {
	t.Helper()
	key := newKey(t)
	text, err := auditlog.SignCheckpoint(context.Background(), key, kernelID, 5, tlog.Hash{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return text, keyregistry.NewKey(key.Public(), signer.Ed25519, keyregistry.OriginFile, envelope.Time{}, envelope.Time{})
}

func TestWitnessPolicy(t *testing.T) {
	a, b, c := newWitness(t, "a.example/w"), newWitness(t, "b.example/w"), newWitness(t, "c.example/w")
	text, entry := newCheckpoint(t)
	names := "witness a " + a.vkey() + " https://a.example/\nwitness b " + b.vkey() + "  # a comment\n\nwitness c " + c.vkey() + "\n"
	for name, p := range map[string]struct {
		policy string
		by     []witness
		ok     bool
	}{
		"2 of 3, all":        {names + "group g 2 a b c\nquorum g", []witness{a, b, c}, true},
		"2 of 3, two":        {names + "group g 2 a b c\nquorum g", []witness{c, a}, true},
		"2 of 3, one twice":  {names + "group g 2 a b c\nquorum g", []witness{a, a}, false},
		"2 of 3, none":       {names + "group g 2 a b c\nquorum g", nil, false},
		"any":                {names + "group g any a b\nquorum g", []witness{b}, true},
		"any, of others":     {names + "group g any a b\nquorum g", []witness{c}, false},
		"all":                {names + "group g all a b\nquorum g", []witness{a}, false},
		"a group of a group": {names + "group g any a b\ngroup h all g c\nquorum h", []witness{b, c}, true},
		"h without c":        {names + "group g any a b\ngroup h all g c\nquorum h", []witness{a, b}, false},
		"one witness":        {names + "quorum b", []witness{b}, true},
		"none is needed":     {names + "quorum none", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			policy, err := auditlog.ParseWitnessPolicy(p.policy)
			if err != nil {
				t.Fatal(err)
			}
			signed := text
			for _, w := range p.by {
				signed = w.cosign(signed, 1_800_000_000)
			}
			found, err := policy.Check(signed)
			if (err == nil) != p.ok || err != nil && failure.ClassOf(err) != failure.AuditProofInvalid {
				t.Errorf("%d cosignatures: %v", len(found), err)
			}
			for _, f := range found {
				if f.Time.Unix() != 1_800_000_000 {
					t.Errorf("%s cosigned at %s", f.Witness, f.Time)
				}
			}
			// Witnesses' lines leave the log's own signature as it is.
			if _, err := auditlog.OpenCheckpoint(signed, kernelID, []keyregistry.Key{entry}); err != nil {
				t.Errorf("a cosigned checkpoint does not open: %v", err)
			}
		})
	}
}

// A line of a known witness that does not verify refuses the note; a line of
// a stranger says nothing.
func TestCosignatureForged(t *testing.T) {
	a := newWitness(t, "a.example/w")
	text, entry := newCheckpoint(t)
	signed := a.cosign(text, 7)
	line := signed[len(text):]
	for i := range len(line) - 2 {
		changed := []byte(line)
		changed[i] ^= 1
		found, err := auditlog.Cosignatures(text+string(changed), []auditlog.Witness{a.Witness})
		if err == nil && len(found) > 0 {
			t.Fatalf("a change of byte %d is accepted: %q", i, changed)
		}
	}
	if _, err := auditlog.Cosignatures(strings.Replace(signed, "\n5\n", "\n6\n", 1), []auditlog.Witness{a.Witness}); failure.ClassOf(err) != failure.AuditProofInvalid {
		t.Errorf("a cosignature of another size: %v", err)
	}
	if found, err := auditlog.Cosignatures(signed, nil); err != nil || found != nil {
		t.Errorf("a stranger's line: %v, %v", found, err)
	}
	// A witness's key is no key of the log, though it signed the same text.
	if _, err := auditlog.OpenCheckpoint(line, kernelID, []keyregistry.Key{entry}); err == nil {
		t.Error("a line alone is a checkpoint")
	}
	body, _, _ := strings.Cut(text, "\n\n")
	if _, err := auditlog.OpenCheckpoint(body+"\n\n"+line, kernelID, []keyregistry.Key{entry}); failure.ClassOf(err) != failure.AuditProofInvalid {
		t.Errorf("a checkpoint that only a witness signed: %v", err)
	}
}

func TestWitnessPolicyRefused(t *testing.T) {
	a, b := newWitness(t, "a.example/w"), newWitness(t, "b.example/w")
	names := "witness a " + a.vkey() + "\nwitness b " + b.vkey() + "\n"
	note := fmt.Sprintf("%s+%08x+%s", a.Name, a.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{1}, a.Key...)))
	sameName := b
	sameName.Name = a.Name
	for name, policy := range map[string]string{
		"nothing":             "",
		"no quorum":           names,
		"two quorums":         names + "quorum a\nquorum b",
		"quorum of nobody":    names + "quorum c",
		"a line of its own":   names + "quorum a\ntrust everybody",
		"threshold 0":         names + "group g 0 a b\nquorum g",
		"threshold 3 of 2":    names + "group g 3 a b\nquorum g",
		"a member twice":      names + "group g 2 a a\nquorum g",
		"in two groups":       names + "group g any a b\ngroup h all g a\nquorum h",
		"used before defined": "group g any a\n" + names + "quorum g",
		"a name twice":        names + "witness a " + newWitness(t, "c").vkey() + "\nquorum a",
		"a key twice":         names + "witness c " + a.vkey() + "\nquorum a",
		"a key's name twice":  "witness a " + a.vkey() + "\nwitness b " + sameName.vkey() + "\nquorum a",
		"named none":          "witness none " + a.vkey() + "\nquorum none",
		"another hash":        "witness a " + strings.Replace(a.vkey(), fmt.Sprintf("%08x", a.KeyHash()), "00000000", 1) + "\nquorum a",
		"a log's key":         "witness a " + note + "\nquorum a",
		"half a key":          "witness a " + a.vkey()[:60] + "\nquorum a",
		"too long":            strings.Repeat("#", 1<<17),
	} {
		if _, err := auditlog.ParseWitnessPolicy(policy); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
