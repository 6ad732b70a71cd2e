package upgrade

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// VerifyManifest verifies a manifest by one registry document at time t: who
// proposed it may, with a key inside its validity.
func VerifyManifest(reg *keyregistry.Registry, env envelope.Envelope, t envelope.Time) (*Manifest, error) {
	m, err := OpenManifest(env)
	if err != nil {
		return nil, err
	}
	if m.KernelID != reg.KernelID() {
		return nil, failure.New(failure.BindingMismatch, "the manifest is of Kernel %s, not %s", m.KernelID, reg.KernelID())
	}
	kinds := []keyregistry.Kind{keyregistry.KindApprover, keyregistry.KindRequestor}
	if m.ProposedBy == KernelID {
		kinds = []keyregistry.Kind{keyregistry.KindKernelRecords}
	}
	if _, err := reg.VerifySigner(env, m.ProposedBy, t, kinds...); err != nil {
		return nil, err
	}
	if m.Timestamp.Sub(t) > Skew {
		return nil, failure.New(failure.TimeInvalid, "the manifest is of %s, after %s", m.Timestamp, t)
	}
	return m, nil
}

// verifyRecord verifies an approver's record about one manifest.
func verifyRecord(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, payloadType string, r record, t envelope.Time) (keyregistry.Entry, error) {
	if err := openRecord(env, payloadType, r); err != nil {
		return keyregistry.Entry{}, err
	}
	return verifyOpened(reg, m, manifestDigest, env, r, t)
}

// verifyOpened is verifyRecord of a record that is parsed.
func verifyOpened(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, r record, t envelope.Time) (keyregistry.Entry, error) {
	c := r.common()
	switch {
	case c.kernelID != m.KernelID || c.upgradeID != m.UpgradeID || c.manifestDigest != manifestDigest:
		return keyregistry.Entry{}, failure.New(failure.BindingMismatch, "the record is about another upgrade or manifest")
	case c.patchHash != nil && *c.patchHash != m.PatchHash:
		return keyregistry.Entry{}, failure.New(failure.BindingMismatch, "the record is about another patch")
	case c.registryDigest != reg.Digest():
		return keyregistry.Entry{}, failure.New(failure.BindingMismatch, "the record was signed under another registry document, %s; sign it again under version %d", c.registryDigest, reg.Version())
	}
	return reg.VerifySigner(env, c.person, t, keyregistry.KindApprover)
}

// VerifyApproval verifies one approval at time t by all of PROTOCOL section 7
// that concerns it alone. Suspension and newer decisions are Tally's.
func VerifyApproval(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, t envelope.Time) (*Approval, error) {
	a, err := OpenApproval(env)
	if err != nil {
		return nil, err
	}
	if err := CheckApproval(reg, m, manifestDigest, env, a, t); err != nil {
		return nil, err
	}
	return a, nil
}

// CheckApproval is VerifyApproval of an approval that OpenApproval has parsed.
func CheckApproval(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, a *Approval, t envelope.Time) error {
	if _, err := verifyOpened(reg, m, manifestDigest, env, a, t); err != nil {
		return err
	}
	if m.ProposedBy == a.ApproverID && reg.Rules().SeparationOfDuties {
		return failure.New(failure.RoleNotAllowed, "%s proposed this upgrade, and the registry separates duties", a.ApproverID)
	}
	if a.ApprovalTs.Sub(m.Timestamp) < -Skew || a.ApprovalTs.Sub(t) > Skew {
		return failure.New(failure.TimeInvalid, "the approval of %s is of %s, before its manifest or after %s", a.ApproverID, a.ApprovalTs, t)
	}
	if t.Sub(a.ApprovalTs) > reg.Rules().ApprovalTTLSeconds {
		return failure.New(failure.ApprovalStale, "the approval of %s is of %s, older than %d seconds; it must be given again", a.ApproverID, a.ApprovalTs, reg.Rules().ApprovalTTLSeconds)
	}
	return nil
}

// VerifyRejection verifies one rejection at time t.
func VerifyRejection(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, t envelope.Time) (*Rejection, error) {
	r := new(Rejection)
	if _, err := verifyRecord(reg, m, manifestDigest, env, envelope.TypeRejection, r, t); err != nil {
		return nil, err
	}
	return r, notAhead(r.RejectionTs, t)
}

// VerifyTestRequest verifies one request for further tests at time t.
func VerifyTestRequest(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, t envelope.Time) (*TestRequest, error) {
	r := new(TestRequest)
	if _, err := verifyRecord(reg, m, manifestDigest, env, envelope.TypeTestRequest, r, t); err != nil {
		return nil, err
	}
	return r, notAhead(r.RequestTs, t)
}

func notAhead(signed, t envelope.Time) error {
	if signed.Sub(t) > Skew {
		return failure.New(failure.TimeInvalid, "signed at %s, after %s", signed, t)
	}
	return nil
}

// The window, in seconds, in which a trigger may be acted on.
const maxTriggerAge = 900

// VerifyTrigger verifies an emergency trigger at decision time t.
func VerifyTrigger(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, env envelope.Envelope, t envelope.Time) (*EmergencyTrigger, error) {
	e := new(EmergencyTrigger)
	entry, err := verifyRecord(reg, m, manifestDigest, env, envelope.TypeEmergencyTrigger, e, t)
	if err != nil {
		return nil, err
	}
	if !entry.Role.MayTriggerEmergency() {
		return nil, failure.New(failure.RoleNotAllowed, "%s, as %s, may not trigger an emergency", entry.ID, entry.Role)
	}
	if age := t.Sub(e.TriggeredAt); age < -Skew || age > maxTriggerAge {
		return nil, failure.New(failure.TimeInvalid, "triggered at %s, too far from the decision at %s", e.TriggeredAt, t)
	}
	return e, nil
}
