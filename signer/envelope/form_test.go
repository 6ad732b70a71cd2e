package envelope_test

import (
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

func wantClass(t *testing.T, name string, err error, want failure.Class) {
	t.Helper()
	if got := failure.ClassOf(err); got != want || (err == nil) != (want == "") {
		t.Errorf("%s: got %v, want class %q", name, err, want)
	}
}

func TestForms(t *testing.T) {
	id := func(s string) error { return new(envelope.ID).UnmarshalText([]byte(s)) }
	uuid := func(s string) error { return new(envelope.UUID).UnmarshalText([]byte(s)) }
	keyID := func(s string) error { return new(envelope.KeyID).UnmarshalText([]byte(s)) }
	digest := func(s string) error { _, err := envelope.ParseDigest(s); return err }
	moment := func(s string) error { _, err := envelope.ParseTime(s); return err }
	hex64 := strings.Repeat("0a", 32)
	for name, c := range map[string]struct {
		parse     func(string) error
		good, bad []string
	}{
		"ID":     {id, []string{"a", "0", "a-b", "a--b", strings.Repeat("a", 63)}, []string{"", "-", "-a", "a-", "A", "a_b", "a.b", "a\n", "ä", strings.Repeat("a", 64)}},
		"UUID":   {uuid, []string{"01234567-89ab-cdef-0123-456789abcdef"}, []string{"", "01234567-89AB-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdeg", "{01234567-89ab-cdef-0123-456789abcdef}", "01234567-89ab-cdef-0123-456789abcdef\n", "01234567089ab-cdef-0123-456789abcdef"}},
		"KeyID":  {keyID, []string{hex64}, []string{"", strings.ToUpper(hex64), hex64[1:], hex64 + "0", "sha256:" + hex64}},
		"Digest": {digest, []string{"sha256:" + hex64}, []string{"", hex64, "SHA256:" + hex64, "sha256:" + strings.ToUpper(hex64), "sha256:" + hex64 + "0", "sha512:" + hex64, "sha256:" + hex64 + "\n"}},
		"Time": {moment, []string{"2026-01-02T03:04:05Z", "2024-02-29T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"},
			[]string{"", "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-02T24:00:00Z", "2026-01-02T03:60:00Z",
				"2026-12-31T23:59:60Z", "2026-01-02t03:04:05Z", "2026-01-02T03:04:05z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05.0Z", "2026-01-02T03:04:05,5Z",
				"2026-1-02T03:04:05Z", "2026-01-02T3:04:05Z", "+026-01-02T03:04:05Z", "12026-01-02T03:04:05Z", "2026-01-02T03:04:05Z\n"}},
	} {
		for _, s := range c.good {
			wantClass(t, name+" "+s, c.parse(s), "")
		}
		for _, s := range c.bad {
			wantClass(t, name+" "+s, c.parse(s), failure.FieldInvalid)
		}
	}
}

func TestText(t *testing.T) {
	good := []string{"a", "\n\t", "ü€𝄞", "~ \u00a0\u00ad", "\u061b\u061d\u200d\u2010\u2029\u202f\u2065\u206a\ufffd", strings.Repeat("𝄞", 80)}
	bad := []string{"", "\x00", "a\r", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f", "\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\xff", "\xed\xa0\x80", strings.Repeat("a", 81)}
	for _, s := range good {
		wantClass(t, s, envelope.CheckText("x", s, 80), "")
	}
	for _, s := range bad {
		wantClass(t, s, envelope.CheckText("x", s, 80), failure.FieldInvalid)
	}
}

func TestTimeArithmetic(t *testing.T) {
	at, err := envelope.ParseTime("2024-02-28T23:59:59Z")
	if err != nil {
		t.Fatal(err)
	}
	next := at.Add(1)
	if next.String() != "2024-02-29T00:00:00Z" || next.Sub(at) != 1 || !at.Before(next) || !next.After(at) || at.After(at) || at.Before(at) {
		t.Errorf("one second after %s is %s", at, next)
	}
	if envelope.TimeOf(at.Std()) != at || at.Unix() != at.Std().Unix() {
		t.Error("Std is not the same moment")
	}
}
