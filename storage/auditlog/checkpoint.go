package auditlog

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Checkpoint is a C2SP tlog-checkpoint's content.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// maxNote bounds the text that is parsed.
const maxNote = 1 << 20

// Origin is the log's origin and the name of its keys.
func Origin(kernelID envelope.ID) string { return "kernelgate/" + string(kernelID) }

// String is the checkpoint's unsigned text.
func (c Checkpoint) String() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// SignCheckpoint makes the signed note of a tree's state with a kernel.audit key.
func SignCheckpoint(ctx context.Context, s signer.Signer, kernelID envelope.ID, size int64, root tlog.Hash) (string, error) {
	key, ok := s.Public().Key().(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("%w: a checkpoint is signed with an Ed25519 key", signer.ErrKey)
	}
	text := Checkpoint{Origin(kernelID), size, root}.String()
	sig, err := s.Sign(ctx, []byte(text))
	if err != nil {
		return "", err
	}
	name := Origin(kernelID)
	hash := noteKeyHash(name, key)
	raw := binary.BigEndian.AppendUint32(nil, hash)
	return text + "\n— " + name + " " + base64.StdEncoding.EncodeToString(append(raw, sig...)) + "\n", nil
}

// noteKeyHash is the C2SP signed-note key ID of an Ed25519 key.
func noteKeyHash(name string, key ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name))
	h.Write([]byte{'\n', 1})
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// VerifierKey is the C2SP signed-note form of an audit key, NAME+HASH+KEY: what
// a witness's operator is given, so that it knows the log.
func VerifierKey(kernelID envelope.ID, key ed25519.PublicKey) string {
	name := Origin(kernelID)
	return fmt.Sprintf("%s+%08x+%s", name, noteKeyHash(name, key), base64.StdEncoding.EncodeToString(append([]byte{1}, key...)))
}

// OpenCheckpoint verifies a checkpoint's note by at least one of the keys and
// parses it. Signature lines of others (witnesses, see WitnessPolicy) may stand
// beside and are not looked at; one of these keys that does not verify refuses
// the note. The failure class is audit_proof_invalid.
func OpenCheckpoint(text string, kernelID envelope.ID, keys []keyregistry.Key) (Checkpoint, error) {
	var c Checkpoint
	if len(text) > maxNote {
		return c, proofInvalid("the checkpoint has %d bytes", len(text))
	}
	name := Origin(kernelID)
	var verifiers []note.Verifier
	for i := range keys {
		key, ok := keys[i].Public().Key().(ed25519.PublicKey)
		if ok {
			verifiers = append(verifiers, noteVerifier{name: name, key: key})
		}
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifiers...))
	if err != nil {
		return c, proofInvalid("the checkpoint is not signed by a key of the Kernel: %w", err)
	}
	if err := checkLines(text[len(n.Text)+1:], n.Text, verifiers); err != nil {
		return c, err
	}
	if c, err = parseCheckpoint(n.Text); err != nil {
		return c, err
	}
	if c.Origin != name {
		return c, proofInvalid("the checkpoint is of the log %.200q", c.Origin)
	}
	return c, nil
}

// checkLines verifies every signature line of these keys. The note package lets
// the last bits of the base64 be anything, and of a key's lines it looks at the
// first alone.
func checkLines(lines, body string, keys []note.Verifier) error {
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line) // dash, name, base64: note.Open saw to it
		raw, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil {
			return proofInvalid("a signature of the checkpoint is not base64: %w", err)
		}
		for _, key := range keys {
			if key.Name() != fields[1] || key.KeyHash() != binary.BigEndian.Uint32(raw) {
				continue
			}
			if base64.StdEncoding.EncodeToString(raw) != fields[2] || !key.Verify([]byte(body), raw[4:]) {
				return proofInvalid("a signature of the checkpoint by the Kernel's key is not canonical base64, or does not verify")
			}
		}
	}
	return nil
}

// ReadCheckpoint parses a checkpoint's note and verifies no signature.
func ReadCheckpoint(text string) (Checkpoint, error) {
	body, _, ok := strings.Cut(text, "\n\n")
	if !ok || len(text) > maxNote {
		return Checkpoint{}, proofInvalid("the checkpoint is no signed note")
	}
	return parseCheckpoint(body + "\n")
}

func parseCheckpoint(text string) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return c, proofInvalid("the checkpoint has fewer than three lines")
	}
	for _, extension := range lines[3 : len(lines)-1] {
		if extension == "" {
			return c, proofInvalid("the checkpoint has an empty line")
		}
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > envelope.MaxInt || strconv.FormatInt(size, 10) != lines[1] {
		return c, proofInvalid("the checkpoint's size is malformed")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return c, proofInvalid("the checkpoint's root is malformed")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}, nil
}

type noteVerifier struct {
	name string
	key  ed25519.PublicKey
}

func (v noteVerifier) Name() string                { return v.name }
func (v noteVerifier) KeyHash() uint32             { return noteKeyHash(v.name, v.key) }
func (v noteVerifier) Verify(msg, sig []byte) bool { return ed25519.Verify(v.key, msg, sig) }

// Entry is one leaf with its inclusion proof, as bundles carry it.
type Entry struct {
	Index int64    `json:"index"`
	Leaf  []byte   `json:"leaf"`
	Proof [][]byte `json:"proof"` // 32 bytes each, RFC 6962 order
}

// Verify checks that the entry is in the checkpoint's tree and is an event
// whose seq is its index. The event's signature is not looked at.
func (e Entry) Verify(c Checkpoint) (Event, envelope.Envelope, error) {
	if e.Index < 0 || e.Index >= c.Size {
		return Event{}, envelope.Envelope{}, proofInvalid("entry %d is not in a tree of %d", e.Index, c.Size)
	}
	proof := make(tlog.RecordProof, len(e.Proof))
	for i, h := range e.Proof {
		if len(h) != len(proof[i]) {
			return Event{}, envelope.Envelope{}, proofInvalid("a hash of the proof has %d bytes", len(h))
		}
		proof[i] = tlog.Hash(h)
	}
	if err := tlog.CheckRecord(proof, c.Size, c.Root, e.Index, LeafHash(e.Leaf)); err != nil {
		return Event{}, envelope.Envelope{}, proofInvalid("entry %d is not in the checkpoint's tree", e.Index)
	}
	event, env, err := ParseLeaf(e.Leaf)
	if err != nil {
		return event, env, err
	}
	if event.Seq != e.Index {
		return event, env, proofInvalid("the event at index %d says seq %d", e.Index, event.Seq)
	}
	return event, env, nil
}

// CheckConsistency checks that the tree of next begins with the tree of last.
// The failure class is audit_fork.
func CheckConsistency(last, next Checkpoint, proof [][]byte) error {
	hashes := make(tlog.TreeProof, len(proof))
	for i, h := range proof {
		if len(h) != len(hashes[i]) {
			return failure.New(failure.AuditFork, "a hash of the proof has %d bytes", len(h))
		}
		hashes[i] = tlog.Hash(h)
	}
	if err := checkTree(last, next, hashes); err != nil {
		return failure.New(failure.AuditFork, "the tree of %d does not continue the tree of %d: %w", next.Size, last.Size, err)
	}
	return nil
}

var (
	errSmaller = errors.New("it is smaller")
	errRoots   = errors.New("two roots at one size")
)

func checkTree(last, next Checkpoint, proof tlog.TreeProof) error {
	switch {
	case next.Size < last.Size:
		return errSmaller
	case next.Size == last.Size && next.Root != last.Root:
		return errRoots
	case last.Size == 0 || next.Size == last.Size:
		return nil // every tree continues the empty one, and itself
	}
	return tlog.CheckTree(proof, next.Size, next.Root, last.Size, last.Root)
}

func proofInvalid(format string, args ...any) error {
	return failure.New(failure.AuditProofInvalid, format, args...)
}
