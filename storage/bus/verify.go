package bus

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// Verifier judges messages one by one, each by itself, from the registry alone.
// It does no IO and keeps nothing: that a stream has no gap (each event's
// prevHash is the hash of the one before, seq by seq) is its reader's to see.
type Verifier struct{ regs keyregistry.Chain }

// NewVerifier takes the registry's chain, from the pinned root on. The chain
// itself is in the stream, in the records of kind registry-entry, and at the
// gateway's /v1/registry.
func NewVerifier(root envelope.Digest, entries []keyregistry.SignedDocument) (*Verifier, error) {
	regs, err := keyregistry.AcceptChain(root, entries)
	return &Verifier{regs}, err
}

// Event verifies a message of an event: its signature by an event key that an
// audit key of the Kernel introduced, and its place in the log under the
// checkpoint. It returns the event, and the checkpoint, which is worth keeping.
func (v *Verifier) Event(m Message) (auditlog.Event, auditlog.Checkpoint, error) {
	env, err := envelope.Parse(bytes.Clone(m.Data))
	if err != nil {
		return auditlog.Event{}, auditlog.Checkpoint{}, err
	}
	checkpoint, err := v.checkpoint(string(m.Checkpoint))
	if err != nil {
		return auditlog.Event{}, checkpoint, err
	}
	seq, err := strconv.ParseInt(m.ID, 10, 64)
	if err != nil {
		return auditlog.Event{}, checkpoint, failure.New(failure.FieldInvalid, "id %.40q is no seq", m.ID)
	}
	entry := auditlog.Entry{Index: seq, Leaf: env.Bytes()}
	for rest := m.Proof; len(rest) > 0; rest = rest[min(len(rest), tlog.HashSize):] {
		entry.Proof = append(entry.Proof, rest[:min(len(rest), tlog.HashSize)])
	}
	event, env, err := entry.Verify(checkpoint)
	if err != nil {
		return event, checkpoint, err
	}
	key, err := v.eventKey(m.Delegation)
	if err != nil {
		return event, checkpoint, err
	}
	if err := auditlog.VerifyEvent(event, env, key); err != nil {
		return event, checkpoint, err
	}
	return event, checkpoint, agrees(m, event)
}

// agrees refuses attributes that say something else than the event.
func agrees(m Message, e auditlog.Event) error {
	if m.Type != typePrefix+e.Type || m.Source != source(e.KernelID) || m.Subject != e.UpgradeID || m.Time != e.Time || m.Sequence != fmt.Sprintf("%016d", e.Seq) {
		return failure.New(failure.BindingMismatch, "the message's attributes are not those of event %d", e.Seq)
	}
	return nil
}

// checkpoint opens a checkpoint by the audit keys of the newest document that
// has one of its signers: who reads an old message has a newer registry.
func (v *Verifier) checkpoint(note string) (c auditlog.Checkpoint, err error) {
	for i := len(v.regs) - 1; i >= 0; i-- {
		if c, err = auditlog.OpenCheckpoint(note, v.regs[i].KernelID(), v.regs[i].Document().Kernel.Audit); err == nil {
			return c, nil
		}
	}
	return c, err
}

func (v *Verifier) eventKey(wire []byte) (auditlog.EventKey, error) {
	env, err := envelope.Parse(wire)
	if err != nil {
		return auditlog.EventKey{}, err
	}
	key, err := auditlog.OpenDelegation(env)
	if err != nil {
		return key, err
	}
	for _, reg := range v.regs {
		audit := reg.Document().Kernel.Audit
		for i := range audit {
			if audit[i].KeyID == key.KeyID {
				return key, audit[i].Verify(env, env.Signatures[0])
			}
		}
	}
	return key, failure.New(failure.KeyUnknown, "the event key was not introduced by an audit key of the Kernel")
}

// Record verifies a message of a record: that its data has the digest that its
// id says, and each signature, by a key of the registry. Whether the record
// counts is for PROTOCOL section 7 to say, and the events. A canary's report
// carries no signature: the event that names its digest vouches for it. A
// registry entry is one of the chain that the verifier was given.
func (v *Verifier) Record(m Message) (envelope.Envelope, error) {
	var env envelope.Envelope
	digest, err := envelope.ParseDigest(m.ID)
	if err != nil {
		return env, err
	}
	if m.Type == typePrefix+"record."+workflow.KindRegistryEntry {
		return v.registryEntry(m, digest)
	}
	if m.DataContentType != envelopeType {
		if envelope.DigestOf(m.Data) != digest {
			return env, failure.New(failure.BindingMismatch, "the data has another digest than %s", digest)
		}
		return env, nil
	}
	if env, err = envelope.Parse(bytes.Clone(m.Data)); err != nil {
		return env, err
	}
	if env.PayloadDigest() != digest {
		return env, failure.New(failure.BindingMismatch, "the record has another digest than %s", digest)
	}
	for _, sig := range env.Signatures {
		if err := v.signed(env, sig); err != nil {
			return env, err
		}
	}
	return env, nil
}

// registryEntry returns the statement.
func (v *Verifier) registryEntry(m Message, digest envelope.Digest) (envelope.Envelope, error) {
	var entry keyregistry.SignedDocument
	if err := json.Unmarshal(m.Data, &entry, json.RejectUnknownMembers(true)); err != nil {
		return envelope.Envelope{}, failure.Reclass(failure.PayloadMalformed, err)
	}
	if envelope.DigestOf(entry.Document) != digest {
		return entry.Statement, failure.New(failure.BindingMismatch, "the document has another digest than %s", digest)
	}
	if _, err := v.regs.Find(digest); err != nil {
		return entry.Statement, err
	}
	return entry.Statement, nil
}

func (v *Verifier) signed(env envelope.Envelope, sig envelope.Signature) error {
	err := failure.New(failure.KeyUnknown, "key %s is in no document of the registry", sig.KeyID)
	for _, reg := range v.regs {
		entry, lookup := reg.Lookup(sig.KeyID)
		if lookup != nil {
			continue
		}
		return entry.Key.Verify(env, sig)
	}
	return err
}
