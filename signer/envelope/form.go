package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kernelgate/kernelgate/signer/failure"
)

// MaxInt is the largest Int of PROTOCOL section 1, 2^53-1.
const MaxInt = 1<<53 - 1

// ID names a person, a Kernel, a target or an event's actor (PROTOCOL section 1).
type ID string

// UnmarshalText accepts exactly the form of an ID.
func (id *ID) UnmarshalText(b []byte) error {
	if !isID(b) {
		return failure.New(failure.FieldInvalid, "%.80q is not an ID: 1 to 63 of a-z, 0-9 and -, neither first nor last a -", b)
	}
	*id = ID(b)
	return nil
}

func isID(b []byte) bool {
	if len(b) == 0 || len(b) > 63 || b[0] == '-' || b[len(b)-1] == '-' {
		return false
	}
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// UUID is 8-4-4-4-12 lower-case hexadecimal digits (PROTOCOL section 1).
type UUID string

// UnmarshalText accepts exactly the form of a UUID.
func (u *UUID) UnmarshalText(b []byte) error {
	ok := len(b) == 36
	for i := 0; ok && i < len(b); i++ {
		switch i {
		case 8, 13, 18, 23:
			ok = b[i] == '-'
		default:
			ok = isLowerHex(b[i])
		}
	}
	if !ok {
		return failure.New(failure.FieldInvalid, "%.80q is not a UUID in lower case", b)
	}
	*u = UUID(b)
	return nil
}

func isLowerHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// IsLowerHex reports whether s is made of n lower-case hexadecimal digits.
func IsLowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if !isLowerHex(s[i]) {
			return false
		}
	}
	return true
}

// KeyID is the lower-case hex SHA-256 of a key's DER SubjectPublicKeyInfo.
type KeyID string

// UnmarshalText accepts exactly 64 lower-case hexadecimal digits.
func (k *KeyID) UnmarshalText(b []byte) error {
	if !IsLowerHex(string(b), 64) {
		return failure.New(failure.FieldInvalid, "%.80q is not a KeyID of 64 lower-case hexadecimal digits", b)
	}
	*k = KeyID(b)
	return nil
}

// Digest is a SHA-256; its text is "sha256:" and 64 lower-case hexadecimal
// digits. The zero value is a digest of its own: the prevHash of the first event.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// DigestOf is the SHA-256 of data.
func DigestOf(data []byte) Digest { return sha256.Sum256(data) }

// ParseDigest parses the text form.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	err := d.UnmarshalText([]byte(s))
	return d, err
}

// String is the text form.
func (d Digest) String() string { return digestPrefix + d.Hex() }

// Hex is the 64 digits without the prefix.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// MarshalText is the text form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts exactly the text form.
func (d *Digest) UnmarshalText(b []byte) error {
	digits, ok := strings.CutPrefix(string(b), digestPrefix)
	if !ok || !IsLowerHex(digits, 2*len(d)) {
		return failure.New(failure.FieldInvalid, "%.80q is not a digest: sha256: and 64 lower-case hexadecimal digits", b)
	}
	_, err := hex.Decode(d[:], []byte(digits))
	return err
}

const timeLayout = "2006-01-02T15:04:05Z"

// Time is a moment in whole seconds, UTC. Its text is exactly
// YYYY-MM-DDTHH:MM:SSZ (PROTOCOL section 1).
type Time struct{ unix int64 }

// TimeOf is t, cut to the whole second.
func TimeOf(t time.Time) Time { return Time{t.Unix()} }

// ParseTime parses the text form.
func ParseTime(s string) (Time, error) {
	var t Time
	err := t.UnmarshalText([]byte(s))
	return t, err
}

// Unix is the count of seconds since 1970.
func (t Time) Unix() int64 { return t.unix }

// Std is the moment in the standard library's type, in UTC.
func (t Time) Std() time.Time { return time.Unix(t.unix, 0).UTC() }

// Add is the moment n seconds later.
func (t Time) Add(seconds int64) Time { return Time{t.unix + seconds} }

// Sub is the count of seconds from u to t.
func (t Time) Sub(u Time) int64 { return t.unix - u.unix }

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.unix < u.unix }

// After reports whether t is later than u.
func (t Time) After(u Time) bool { return t.unix > u.unix }

// String is the text form.
func (t Time) String() string { return t.Std().Format(timeLayout) }

// MarshalText is the text form.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts exactly the text form of a moment that exists.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := time.Parse(timeLayout, string(b))
	// The round trip refuses what the layout is lenient about.
	if err != nil || len(b) != len(timeLayout) || parsed.Format(timeLayout) != string(b) {
		return failure.New(failure.FieldInvalid, "%.80q is not a time of the form YYYY-MM-DDTHH:MM:SSZ", b)
	}
	t.unix = parsed.Unix()
	return nil
}

// CheckText refuses a value that is not Text(limit) of PROTOCOL section 1:
// 1 to limit code points without control characters (but newline and tab) and
// without the characters that turn the direction of writing.
func CheckText(field, value string, limit int) error {
	if !utf8.ValidString(value) {
		return failure.New(failure.FieldInvalid, "%s is not valid UTF-8", field)
	}
	if n := utf8.RuneCountInString(value); n < 1 || n > limit {
		return failure.New(failure.FieldInvalid, "%s has %d characters, where 1 to %d are allowed", field, n, limit)
	}
	for _, r := range value {
		if isForbidden(r) {
			return failure.New(failure.FieldInvalid, "%s contains the forbidden character U+%04X", field, r)
		}
	}
	return nil
}

func isForbidden(r rune) bool {
	switch {
	case r < 0x20:
		return r != '\n' && r != '\t'
	case r < 0x7f:
		return false
	case r <= 0x9f, r == 0x061c, r == 0x200e, r == 0x200f,
		r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

// CheckInt refuses a value outside least..most.
func CheckInt(field string, value, least, most int64) error {
	if value < least || value > most {
		return failure.New(failure.FieldInvalid, "%s is %d, where %d to %d are allowed", field, value, least, most)
	}
	return nil
}
