package auditlog

import (
	"context"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// MaxEventKeySeconds is the longest validity of an event key.
const MaxEventKeySeconds = 86400

// Delegation introduces an event key: Ed25519, in the memory of one gateway.
type Delegation struct {
	EventKeyID envelope.KeyID `json:"eventKeyId"`
	Instance   string         `json:"instance"` // Text(80)
	KernelID   envelope.ID    `json:"kernelId"`
	KeyID      envelope.KeyID `json:"keyId"` // the kernel.audit key that signs this
	NotAfter   envelope.Time  `json:"notAfter"`
	NotBefore  envelope.Time  `json:"notBefore"`
	PublicKey  []byte         `json:"publicKey"` // DER SubjectPublicKeyInfo
}

// EventKey is a delegation whose form was checked, with its parsed key.
type EventKey struct {
	Delegation
	Public signer.PublicKey
}

// SealDelegation signs a delegation with a kernel.audit key.
func SealDelegation(ctx context.Context, s signer.Signer, d Delegation) (envelope.Envelope, error) {
	d.KeyID = envelope.KeyID(s.Public().KeyID())
	if _, err := d.check(); err != nil {
		return envelope.Envelope{}, err
	}
	return envelope.Seal(ctx, s, envelope.TypeEventKey, d)
}

// OpenDelegation parses an event-key envelope and checks its form. Whose audit
// key signed it is the caller's to verify (keyregistry.Key.Verify).
func OpenDelegation(env envelope.Envelope) (EventKey, error) {
	var k EventKey
	if err := env.Expect(envelope.TypeEventKey); err != nil {
		return k, err
	}
	sig, err := env.Single()
	if err != nil {
		return k, err
	}
	if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &k.Delegation); err != nil {
		return k, err
	}
	if k.KeyID != sig.KeyID {
		return k, failure.New(failure.BindingMismatch, "the delegation names another key than its signature")
	}
	k.Public, err = k.check()
	return k, err
}

// VerifyDelegation verifies the delegation that an audit.key_delegated event
// carries: by an audit key of any document of the chain in which the key is
// valid at the event's time, and introducing the very key that signs the event.
func VerifyDelegation(chain keyregistry.Chain, event Event) (EventKey, error) {
	env, err := event.Delegation()
	if err != nil {
		return EventKey{}, err
	}
	key, err := OpenDelegation(env)
	if err != nil {
		return key, err
	}
	if key.KernelID != event.KernelID || key.EventKeyID != event.KeyID {
		return key, proofInvalid("event %d introduces another key than the one that signs it", event.Seq)
	}
	for _, reg := range chain {
		if _, err = reg.VerifySigner(env, keyregistry.KernelHolder, event.Time, keyregistry.KindKernelAudit); err == nil {
			return key, nil
		}
	}
	return key, failure.Reclass(failure.AuditProofInvalid, err)
}

func (d *Delegation) check() (signer.PublicKey, error) {
	public, err := signer.ParsePublicKey(d.PublicKey)
	if err != nil {
		return public, err
	}
	if !signer.Ed25519.Fits(public.Key()) || public.KeyID() != string(d.EventKeyID) {
		return public, failure.New(failure.FieldInvalid, "an event key is an Ed25519 key, named by its SHA-256")
	}
	if seconds := d.NotAfter.Sub(d.NotBefore); seconds < 0 || seconds > MaxEventKeySeconds {
		return public, failure.New(failure.FieldInvalid, "an event key is valid for at most %d seconds", MaxEventKeySeconds)
	}
	return public, envelope.CheckText("instance", d.Instance, 80)
}
