package upgrade

import (
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Approval is one approver's yes to exactly one change.
type Approval struct {
	ApprovalTs          envelope.Time   `json:"approvalTs"`
	ApproverID          envelope.ID     `json:"approverId"`
	KernelID            envelope.ID     `json:"kernelId"`
	KeyID               envelope.KeyID  `json:"keyId"`
	ManifestDigest      envelope.Digest `json:"manifestDigest"`
	Notes               string          `json:"notes,omitzero"` // Text(1000)
	PatchHash           envelope.Digest `json:"patchHash"`
	RegistryDigest      envelope.Digest `json:"registryDigest"`
	RollbackPreapproved bool            `json:"rollbackPreapproved,omitzero"`
	UpgradeID           envelope.UUID   `json:"upgradeId"`
}

// Rejection is one approver's no, with the reason.
type Rejection struct {
	ApproverID     envelope.ID     `json:"approverId"`
	KernelID       envelope.ID     `json:"kernelId"`
	KeyID          envelope.KeyID  `json:"keyId"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	Reason         string          `json:"reason"` // Text(1000)
	RegistryDigest envelope.Digest `json:"registryDigest"`
	RejectionTs    envelope.Time   `json:"rejectionTs"`
	UpgradeID      envelope.UUID   `json:"upgradeId"`
}

// TestRequest is an approver's advice that further tests should run.
type TestRequest struct {
	ApproverID     envelope.ID     `json:"approverId"`
	KernelID       envelope.ID     `json:"kernelId"`
	KeyID          envelope.KeyID  `json:"keyId"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	Notes          string          `json:"notes,omitzero"` // Text(1000)
	RegistryDigest envelope.Digest `json:"registryDigest"`
	RequestTs      envelope.Time   `json:"requestTs"`
	Tests          []string        `json:"tests"` // 1 to 16 of Text(80)
	UpgradeID      envelope.UUID   `json:"upgradeId"`
}

// EmergencyTrigger breaks the glass, by a superadmin or a security engineer.
type EmergencyTrigger struct {
	KernelID       envelope.ID     `json:"kernelId"`
	KeyID          envelope.KeyID  `json:"keyId"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	PatchHash      envelope.Digest `json:"patchHash"`
	Reason         string          `json:"reason"` // Text(1000)
	RegistryDigest envelope.Digest `json:"registryDigest"`
	TriggeredAt    envelope.Time   `json:"triggeredAt"`
	TriggeredBy    envelope.ID     `json:"triggeredBy"`
	UpgradeID      envelope.UUID   `json:"upgradeId"`
}

// common is what every record about an upgrade says beside its own content.
type common struct {
	kernelID       envelope.ID
	upgradeID      envelope.UUID
	person         envelope.ID
	keyID          envelope.KeyID
	manifestDigest envelope.Digest
	registryDigest envelope.Digest
	patchHash      *envelope.Digest // nil where the record has none
}

type record interface {
	common() common
	check() error
}

func (a *Approval) common() common {
	return common{a.KernelID, a.UpgradeID, a.ApproverID, a.KeyID, a.ManifestDigest, a.RegistryDigest, &a.PatchHash}
}

func (r *Rejection) common() common {
	return common{r.KernelID, r.UpgradeID, r.ApproverID, r.KeyID, r.ManifestDigest, r.RegistryDigest, nil}
}

func (r *TestRequest) common() common {
	return common{r.KernelID, r.UpgradeID, r.ApproverID, r.KeyID, r.ManifestDigest, r.RegistryDigest, nil}
}

func (e *EmergencyTrigger) common() common {
	return common{e.KernelID, e.UpgradeID, e.TriggeredBy, e.KeyID, e.ManifestDigest, e.RegistryDigest, &e.PatchHash}
}

func (a *Approval) check() error { return optionalText("notes", a.Notes) }

func (r *Rejection) check() error { return envelope.CheckText("reason", r.Reason, 1000) }

func (r *TestRequest) check() error {
	return firstError(optionalText("notes", r.Notes), checkNames("tests", r.Tests, 1, 16, false))
}

func (e *EmergencyTrigger) check() error { return envelope.CheckText("reason", e.Reason, 1000) }

func optionalText(field, value string) error {
	if value == "" {
		return nil
	}
	return envelope.CheckText(field, value, 1000)
}

// openPayload decodes the payload of an envelope that must have this type and
// exactly one signature.
func openPayload(env envelope.Envelope, payloadType string, v any) (envelope.Signature, error) {
	if err := env.Expect(payloadType); err != nil {
		return envelope.Signature{}, err
	}
	sig, err := env.Single()
	if err != nil {
		return sig, err
	}
	return sig, envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, v)
}

func openRecord(env envelope.Envelope, payloadType string, r record) error {
	sig, err := openPayload(env, payloadType, r)
	if err != nil {
		return err
	}
	if r.common().keyID != sig.KeyID {
		return failure.New(failure.BindingMismatch, "the record names another key than its signature")
	}
	return r.check()
}

// OpenApproval parses an approval and checks its form. It verifies no signature:
// CheckApproval does.
func OpenApproval(env envelope.Envelope) (*Approval, error) {
	a := new(Approval)
	if err := openRecord(env, envelope.TypeApproval, a); err != nil {
		return nil, err
	}
	return a, nil
}

// OpenManifest parses a manifest and checks its form. It verifies no
// signature: VerifyManifest does.
func OpenManifest(env envelope.Envelope) (*Manifest, error) {
	m := new(Manifest)
	sig, err := openPayload(env, envelope.TypeManifest, m)
	if err != nil {
		return nil, err
	}
	if m.KeyID != sig.KeyID {
		return nil, failure.New(failure.BindingMismatch, "the manifest names another key than its signature")
	}
	return m, m.Check()
}
