package keyregistry

import (
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Suspension takes one key out of use at once, for as long as the registry
// document that it names is in force (PROTOCOL section 6).
type Suspension struct {
	IssuedBy       envelope.ID     `json:"issuedBy"`
	KernelID       envelope.ID     `json:"kernelId"`
	KeyID          envelope.KeyID  `json:"keyId"`
	Reason         string          `json:"reason"` // Text(1000)
	RegistryDigest envelope.Digest `json:"registryDigest"`
	SuspendedAt    envelope.Time   `json:"suspendedAt"` // informs; it takes effect when received
	SuspendedKeyID envelope.KeyID  `json:"suspendedKeyId"`
}

// AcceptSuspension verifies a suspension by the registry in force at now.
// suspended says which keys are suspended already.
func (r *Registry) AcceptSuspension(env envelope.Envelope, suspended func(envelope.KeyID) bool, now envelope.Time) (*Suspension, error) {
	if err := env.Expect(envelope.TypeKeySuspension); err != nil {
		return nil, err
	}
	sig, err := env.Single()
	if err != nil {
		return nil, err
	}
	s := new(Suspension)
	if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, s); err != nil {
		return nil, err
	}
	if err := envelope.CheckText("reason", s.Reason, 1000); err != nil {
		return nil, err
	}
	if s.KernelID != r.doc.KernelID || s.RegistryDigest != r.digest || s.KeyID != sig.KeyID {
		return nil, failure.New(failure.BindingMismatch, "the suspension names another Kernel, registry document or key than those it is for")
	}
	issuer, err := r.Lookup(s.KeyID)
	if err != nil {
		return nil, err
	}
	if err := issuer.Require(s.IssuedBy, KindApprover, KindRequestor, KindCI); err != nil {
		return nil, err
	}
	if suspended(s.KeyID) {
		return nil, failure.New(failure.KeySuspended, "key %s is itself suspended", s.KeyID)
	}
	if err := issuer.RequireValid(now); err != nil {
		return nil, err
	}
	if err := issuer.Key.Verify(env, sig); err != nil {
		return nil, err
	}
	return s, r.checkSuspension(issuer, s.SuspendedKeyID, suspended)
}

func (r *Registry) checkSuspension(issuer Entry, id envelope.KeyID, suspended func(envelope.KeyID) bool) error {
	target, err := r.Lookup(id)
	if err != nil {
		return err
	}
	if target.ID == KernelHolder {
		return failure.New(failure.RoleNotAllowed, "keys of the Kernel cannot be suspended; replace them in a new registry version")
	}
	if target.ID == issuer.ID {
		return nil
	}
	if !issuer.Role.MayTriggerEmergency() {
		return failure.New(failure.RoleNotAllowed, "%s may suspend only own keys", issuer.ID)
	}
	left := 0
	for i := range r.doc.Approvers {
		for _, k := range r.doc.Approvers[i].Keys {
			if k.KeyID != id && !suspended(k.KeyID) {
				left++
				break
			}
		}
	}
	if left < Quorum {
		return failure.New(failure.QuorumNotMet, "only %d approvers would keep a key; %d are needed", left, Quorum)
	}
	return nil
}
