package upgrade

import (
	"bytes"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Statement is what the Kernel signs: an in-toto Statement v1 in canonical
// form. Predicate is an AppliedPredicate or a RatificationPredicate.
type Statement struct {
	Type          string    `json:"_type"`
	Predicate     any       `json:"predicate"`
	PredicateType string    `json:"predicateType"`
	Subject       []Subject `json:"subject"`
}

// Subject is the target and the patch that was decided on.
type Subject struct {
	Digest struct {
		SHA256 string `json:"sha256"`
	} `json:"digest"`
	Name envelope.ID `json:"name"`
}

// AppliedPredicate is an AppliedUpgradeRecord's content.
type AppliedPredicate struct {
	Approvers      []envelope.ID   `json:"approvers"`
	Automatic      Case            `json:"automatic,omitzero"`
	BaseRevision   Revision        `json:"baseRevision"`
	BundleDigest   envelope.Digest `json:"bundleDigest"`
	DecidedAt      envelope.Time   `json:"decidedAt"`
	Emergency      bool            `json:"emergency"`
	KernelID       envelope.ID     `json:"kernelId"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	PatchHash      envelope.Digest `json:"patchHash"`
	RatifyBy       *envelope.Time  `json:"ratifyBy,omitzero"`
	RegistryDigest envelope.Digest `json:"registryDigest"`
	Type           Type            `json:"type"`
	UpgradeID      envelope.UUID   `json:"upgradeId"`
}

// RatificationPredicate is a Ratification's content.
type RatificationPredicate struct {
	AppliedRecordDigest envelope.Digest `json:"appliedRecordDigest"`
	Approvers           []envelope.ID   `json:"approvers"`
	BundleDigest        envelope.Digest `json:"bundleDigest"`
	DecidedAt           envelope.Time   `json:"decidedAt"`
	KernelID            envelope.ID     `json:"kernelId"`
	ManifestDigest      envelope.Digest `json:"manifestDigest"`
	RegistryDigest      envelope.Digest `json:"registryDigest"`
	UpgradeID           envelope.UUID   `json:"upgradeId"`
}

// Compose is the AppliedUpgradeRecord of a verdict.
func (v *Verdict) Compose() Statement {
	p := AppliedPredicate{
		Approvers: v.Approvers, BaseRevision: v.Manifest.BaseRevision, BundleDigest: v.BundleDigest, DecidedAt: v.DecidedAt,
		Emergency: v.Case == CaseEmergency, KernelID: v.Manifest.KernelID, ManifestDigest: v.ManifestDigest,
		PatchHash: v.Manifest.PatchHash, RatifyBy: v.RatifyBy, RegistryDigest: v.Registry.Digest(),
		Type: v.Manifest.Type, UpgradeID: v.Manifest.UpgradeID,
	}
	if v.Case == CaseAutomatic || v.Case == CasePreapproved {
		p.Automatic = v.Case
	}
	return v.statement(AppliedRecordType, p)
}

// ComposeRatification is the Ratification of a verdict; appliedRecord is the
// payload digest of the emergency's record.
func (v *Verdict) ComposeRatification(appliedRecord envelope.Digest) Statement {
	return v.statement(RatificationType, RatificationPredicate{
		AppliedRecordDigest: appliedRecord, Approvers: v.Approvers, BundleDigest: v.BundleDigest, DecidedAt: v.DecidedAt,
		KernelID: v.Manifest.KernelID, ManifestDigest: v.ManifestDigest, RegistryDigest: v.Registry.Digest(), UpgradeID: v.Manifest.UpgradeID,
	})
}

func (v *Verdict) statement(predicateType string, predicate any) Statement {
	subject := Subject{Name: v.Manifest.Target.Name}
	subject.Digest.SHA256 = v.Manifest.PatchHash.Hex()
	return Statement{Type: StatementType, Predicate: predicate, PredicateType: predicateType, Subject: []Subject{subject}}
}

// VerifyRecord verifies the AppliedUpgradeRecord of a verdict: its payload is
// exactly what the verdict composes, its signer one of the Kernel's record keys.
func VerifyRecord(v *Verdict, env envelope.Envelope) error {
	return v.verifyStatement(env, v.Compose())
}

// VerifyRatificationRecord is VerifyRecord for a Ratification.
func VerifyRatificationRecord(v *Verdict, env envelope.Envelope, appliedRecord envelope.Digest) error {
	return v.verifyStatement(env, v.ComposeRatification(appliedRecord))
}

func (v *Verdict) verifyStatement(env envelope.Envelope, want Statement) error {
	if err := env.Expect(envelope.TypeInToto); err != nil {
		return err
	}
	if _, err := env.Single(); err != nil {
		return err
	}
	payload, err := envelope.Canonical(want)
	if err != nil {
		return err
	}
	if !bytes.Equal(payload, env.Payload) {
		return mismatch("the Kernel's record does not say what its bundle does")
	}
	_, err = v.Registry.VerifySigner(env, KernelID, v.DecidedAt, keyregistry.KindKernelRecords)
	if err != nil {
		return failure.Reclass(failure.KernelSignatureInvalid, err)
	}
	return nil
}
