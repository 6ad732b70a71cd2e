package guard

import (
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// checkTarget checks a case against what was signed before. now is the
// decision's time where a log is replayed.
func (m *memory) checkTarget(v *upgrade.Verdict, b *upgrade.QuorumBundle, now envelope.Time) error {
	t := m.target(v.Manifest.Target.Name)
	if v.Manifest.BaseRevision != t.Live {
		return failure.New(failure.BaseRevisionMoved, "%s is at %s, not at %s", t.Name, t.Live, v.Manifest.BaseRevision)
	}
	if u, taken := m.rollbacks[v.Manifest.UpgradeID]; taken && m.upgrades[u].Rollback.PayloadDigest() != v.ManifestDigest {
		return failure.New(failure.BindingMismatch, "upgrade %s is the Kernel's rollback of %s; one upgradeId has one manifest", v.Manifest.UpgradeID, u)
	}
	if v.Manifest.Type == upgrade.TypeRollback {
		if err := m.checkRollback(v, t); err != nil {
			return err
		}
	}
	if now.Before(v.DecidedAt) {
		now = v.DecidedAt
	}
	switch v.Case {
	case upgrade.CaseEmergency:
		return m.checkEmergency(v.Manifest, t, now)
	case upgrade.CaseAutomatic:
		return m.checkAutomatic(v, b)
	case upgrade.CasePreapproved:
		if err := m.overdue(t, now); err != nil {
			return err
		}
		return m.checkPreapproved(v, b)
	}
	return nil
}

// manifest is as much of the upgrade's manifest as a rollback of it is judged by.
func (u *signedMemory) manifest() *upgrade.Manifest {
	return &upgrade.Manifest{UpgradeID: u.UpgradeID, Target: upgrade.Target{Name: u.Target}, PatchHash: u.PatchHash, BaseRevision: u.BaseRevision}
}

// checkRollback: a rollback takes back what is live, exactly; and one that the
// Kernel proposes is the one manifest that the guard signed for it.
func (m *memory) checkRollback(v *upgrade.Verdict, t targetMemory) error {
	r := v.Manifest
	if r.Rollback.UpgradeID != t.LiveUpgrade {
		return failure.New(failure.BaseRevisionMoved, "the rollback is of %s, while %s is live", r.Rollback.UpgradeID, t.LiveUpgrade)
	}
	u := m.upgrades[t.LiveUpgrade]
	if err := upgrade.CheckRollbackOf(r, u.manifest()); err != nil {
		return err
	}
	if r.ProposedBy == upgrade.KernelID && (u.Rollback == nil || u.Rollback.PayloadDigest() != v.ManifestDigest) {
		return failure.New(failure.BindingMismatch, "the guard did not sign this rollback manifest of %s", t.LiveUpgrade)
	}
	return nil
}

// checkEmergency: one emergency at a target until it is ratified or a record
// with a quorum follows, but for one that rolls it back, in time.
func (m *memory) checkEmergency(e *upgrade.Manifest, t targetMemory, now envelope.Time) error {
	if len(t.Open) > 1 || len(t.Open) == 1 && (e.Type != upgrade.TypeRollback || e.Rollback.UpgradeID != t.Open[0]) {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s at %s is not ratified", t.Open[0], t.Name)
	}
	return m.overdue(t, now)
}

// overdue refuses from the ratifyBy of an unratified emergency on: then only its
// automatic rollback or a quorum may follow. One that is live counts also where
// a quorum's record closed it: that record's deploy failed.
func (m *memory) overdue(t targetMemory, now envelope.Time) error {
	for _, id := range append(slices.Clone(t.Open), t.LiveUpgrade) {
		u := m.upgrades[id]
		if u != nil && u.RatifyBy != nil && u.Ratification == nil && !now.Before(*u.RatifyBy) {
			return failure.New(failure.EmergencyNotAllowed, "emergency %s was to be ratified by %s; it is rolled back, or a quorum decides", id, u.RatifyBy)
		}
	}
	return nil
}

// nested is what was signed for the decision that a rollback rests on.
func (m *memory) nested(v *upgrade.Verdict, n *upgrade.Nested) (*signedMemory, error) {
	u := m.upgrades[v.Nested.Manifest.UpgradeID]
	if u == nil || u.BundleDigest != v.Nested.BundleDigest || u.RecordDigest != n.Record.PayloadDigest() {
		return nil, failure.New(failure.BindingMismatch, "the earlier decision is not the one that was signed for %s", v.Nested.Manifest.UpgradeID)
	}
	return u, nil
}

// checkAutomatic: the rest, that decidedAt is past ratifyBy above all, is the
// verdict's own, and checkRollback's that the emergency is live.
func (m *memory) checkAutomatic(v *upgrade.Verdict, b *upgrade.QuorumBundle) error {
	u, err := m.nested(v, b.Emergency)
	if err != nil {
		return err
	}
	if u.Ratification != nil {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s was ratified; people roll it back", u.UpgradeID)
	}
	return nil
}

// checkPreapproved: the canary of u is known to have failed, and the people
// who pre-approved its rollback still count.
func (m *memory) checkPreapproved(v *upgrade.Verdict, b *upgrade.QuorumBundle) error {
	u, err := m.nested(v, b.Preapproval)
	if err != nil {
		return err
	}
	if !u.CanaryFailed {
		return failure.New(failure.NotYetDue, "no sealed event says that the canary of %s failed", u.UpgradeID)
	}
	count, nonBrowser := 0, int64(0)
	for _, env := range b.Preapproval.QuorumBundle.Approvals {
		var a upgrade.Approval
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &a); err != nil {
			return err
		}
		if !a.RollbackPreapproved || m.suspended[a.KeyID] {
			continue
		}
		count++
		if env.Signatures[0].WebAuthn == nil {
			nonBrowser++
		}
	}
	if count < upgrade.Quorum || nonBrowser < v.Nested.Registry.Rules().MinNonBrowserApprovals {
		return failure.New(failure.KeySuspended, "suspensions leave %d of those who pre-approved the rollback", count)
	}
	return nil
}
