package auditlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// algCosignatureV1 is the C2SP signed-note type of a timestamped Ed25519
// cosignature.
const algCosignatureV1 = 4

// maxSeconds is the end of the year 9999: a later one has no Time.
const maxSeconds = 253402300799

// Witness is who cosigns checkpoints by C2SP tlog-witness, after it has seen
// that each continues the one before.
type Witness struct {
	Name string // of its key, such as witness.example.com/w1
	Key  ed25519.PublicKey
	URL  string // its submission prefix; empty where only its cosignatures are checked
}

// ParseWitness parses a witness's verifier key: NAME+HASH+KEY, as witnesses
// publish it (C2SP signed-note).
func ParseWitness(vkey string) (Witness, error) {
	var w Witness
	name, rest, _ := strings.Cut(vkey, "+")
	hash, text, ok := strings.Cut(rest, "+")
	if !ok || !isKeyName(name) || !envelope.IsLowerHex(hash, 8) {
		return w, fmt.Errorf("%.120q is no verifier key, NAME+HASH+KEY", vkey)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignatureV1 {
		return w, fmt.Errorf("the key of witness %.80q is no cosignature/v1 Ed25519 key", name)
	}
	w = Witness{Name: name, Key: raw[1:]}
	if n, err := strconv.ParseUint(hash, 16, 32); err != nil || uint32(n) != w.KeyHash() {
		return w, fmt.Errorf("the hash of witness %.80q is not its key's", name)
	}
	return w, nil
}

func isKeyName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '+' || r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

// KeyHash is the witness's C2SP signed-note key ID.
func (w Witness) KeyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(w.Name))
	h.Write([]byte{'\n', algCosignatureV1})
	h.Write(w.Key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Cosignature is one witness's word: it saw this checkpoint, and none that it
// does not continue, by that time.
type Cosignature struct {
	Witness string
	Time    envelope.Time
}

// cosigner verifies a witness's line of a note.
type cosigner struct{ Witness }

func (c cosigner) Name() string { return c.Witness.Name }

func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	if seconds > maxSeconds {
		return false
	}
	return ed25519.Verify(c.Key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, msg), sig[8:])
}

// SignerOf names the key of a note's signature line, NAME+HASH. It verifies nothing.
func SignerOf(line string) (string, error) {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(fields) == 3 && fields[0] == "—" && strings.HasSuffix(line, "\n") && isKeyName(fields[1]) {
		if raw, err := base64.StdEncoding.DecodeString(fields[2]); err == nil && len(raw) > 4 {
			return fmt.Sprintf("%s+%08x", fields[1], raw[:4]), nil
		}
	}
	return "", proofInvalid("%.120q is no signature line of a note", line)
}

// Cosignatures are the valid cosignatures that a note carries of these
// witnesses, at most one of each. Lines of others are not looked at; a line of
// one of these that does not verify refuses the note (audit_proof_invalid).
func Cosignatures(text string, witnesses []Witness) ([]Cosignature, error) {
	if len(text) > maxNote {
		return nil, proofInvalid("the checkpoint has %d bytes", len(text))
	}
	verifiers := make([]note.Verifier, len(witnesses))
	for i, w := range witnesses {
		verifiers[i] = cosigner{w}
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifiers...))
	if none := new(note.UnverifiedNoteError); errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, proofInvalid("a cosignature of the checkpoint: %w", err)
	}
	out := make([]Cosignature, 0, len(n.Sigs))
	for _, sig := range n.Sigs {
		raw, err := base64.StdEncoding.Strict().DecodeString(sig.Base64)
		if err != nil || len(raw) < 12 || base64.StdEncoding.EncodeToString(raw) != sig.Base64 { // the decoder passes over line ends
			return nil, proofInvalid("a cosignature of the checkpoint is not canonical base64")
		}
		out = append(out, Cosignature{sig.Name, timeOfUnix(binary.BigEndian.Uint64(raw[4:]))})
	}
	return out, nil
}
