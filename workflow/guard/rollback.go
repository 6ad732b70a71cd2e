package guard

import (
	"context"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// SignRatification signs the one Ratification of an emergency.
func (g *Guard) SignRatification(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	none := envelope.Envelope{}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.ready(); err != nil {
		return none, err
	}
	u := g.mem.upgrades[b.Quorum.UpgradeID]
	if u == nil || u.RatifyBy == nil {
		return none, failure.New(failure.EmergencyNotAllowed, "no emergency %s was signed", b.Quorum.UpgradeID)
	}
	if old := u.Ratification; old != nil {
		if old.BundleDigest != b.Digest() {
			return none, failure.New(failure.AlreadySigned, "emergency %s was ratified by another bundle, %s", u.UpgradeID, old.BundleDigest)
		}
		if old.Record != nil {
			return *old.Record, nil
		}
	}
	v, err := upgrade.VerifyRatification(g.mem.regs, u.emergency(), &b)
	if err != nil {
		return none, err
	}
	now := g.mem.clock
	if u.Ratification == nil { // else the log shows it as signed, and its envelope is lost
		if now, err = g.now(); err != nil {
			return none, err
		}
		if now.After(*u.RatifyBy) {
			return none, failure.New(failure.RatificationLate, "it is %s, after %s", now, u.RatifyBy)
		}
		if err := g.judge(ctx, v, &b, now, proof, auditlog.UpgradeRatified); err != nil {
			return none, err
		}
	}
	env, err := g.seal(ctx, g.config.Records, envelope.TypeInToto, v.ComposeRatification(u.RecordDigest))
	if err != nil {
		return none, err
	}
	if err := upgrade.VerifyRatificationRecord(v, env, u.RecordDigest); err != nil {
		return none, err
	}
	c := g.mem.ratify(u, v)
	c.Upgrade.Ratification.Record = &env
	c.Counts = g.counted(func(c *workflow.GuardCounts) *int64 { return &c.Ratifications })
	if err := g.remember(now, c); err != nil {
		return none, err
	}
	return env, nil
}

// emergency is as much of an emergency's verdict as its ratification is judged by.
func (u *signedMemory) emergency() *upgrade.Verdict {
	return &upgrade.Verdict{Case: upgrade.CaseEmergency, ManifestDigest: u.ManifestDigest, Signed: u.Signed, DecidedAt: u.DecidedAt, RatifyBy: u.RatifyBy}
}

// ratify is what a ratification changes.
func (m *memory) ratify(old *signedMemory, v *upgrade.Verdict) change {
	u, t := *old, m.target(old.Target)
	u.Ratification = &ratificationMemory{BundleDigest: v.BundleDigest}
	t.close(u.UpgradeID)
	return change{Upgrade: &u, Target: &t}
}

// SignRollback signs the Kernel's one rollback manifest of the live upgrade u,
// once its canary failed, by the proof, or its ratification was missed. Asked
// again for u, in whatever words, it gives the manifest that it signed first.
func (g *Guard) SignRollback(ctx context.Context, m upgrade.Manifest, proof *workflow.LogProof) (envelope.Envelope, error) {
	none := envelope.Envelope{}
	now, err := g.start()
	if err != nil {
		return none, err
	}
	defer g.mu.Unlock()
	if m.Type != upgrade.TypeRollback || m.Rollback == nil || m.ProposedBy != upgrade.KernelID {
		return none, failure.New(failure.RoleNotAllowed, "the Kernel proposes rollbacks only")
	}
	old := g.mem.upgrades[m.Rollback.UpgradeID]
	if old == nil {
		return none, failure.New(failure.BindingMismatch, "upgrade %s has no record", m.Rollback.UpgradeID)
	}
	if old.Rollback != nil {
		return *old.Rollback, nil
	}
	m.KeyID = envelope.KeyID(g.config.Records.Public().KeyID())
	if err := g.mayRollBack(&m, old, now, proof); err != nil {
		return none, err
	}
	env, err := g.seal(ctx, g.config.Records, envelope.TypeManifest, m)
	if err != nil {
		return none, err
	}
	// Verified as anybody will: the manifest's form, and the Kernel's key.
	if _, err := upgrade.VerifyManifest(g.mem.regs.Last(), env, now.Add(upgrade.Skew)); err != nil {
		return none, err
	}
	u := *old
	u.Rollback, u.CanaryFailed = &env, u.CanaryFailed || proof != nil
	counts := g.counted(func(c *workflow.GuardCounts) *int64 { return &c.Rollbacks })
	if err := g.remember(now, change{Upgrade: &u, Counts: counts}); err != nil {
		return none, err
	}
	return env, nil
}

func (g *Guard) mayRollBack(m *upgrade.Manifest, u *signedMemory, now envelope.Time, proof *workflow.LogProof) error {
	if g.mem.target(u.Target).LiveUpgrade != u.UpgradeID {
		return failure.New(failure.BaseRevisionMoved, "upgrade %s is not live", u.UpgradeID)
	}
	if _, taken := g.mem.rollbacks[m.UpgradeID]; taken || g.mem.upgrades[m.UpgradeID] != nil {
		return failure.New(failure.AlreadySigned, "upgrade %s exists; a rollback is a new upgrade", m.UpgradeID)
	}
	if err := upgrade.CheckRollbackOf(m, u.manifest()); err != nil {
		return err
	}
	if d := m.Timestamp.Sub(now); d < -maxSkew || d > maxSkew {
		return failure.New(failure.TimeInvalid, "the manifest is of %s, too far from now, %s", m.Timestamp, now)
	}
	if err := g.requireOwn(g.config.Records, keyregistry.KindKernelRecords, now); err != nil {
		return err
	}
	if proof == nil {
		return u.missed(now)
	}
	e, err := g.event(*proof, now)
	if err != nil {
		return err
	}
	if e.UpgradeID != u.UpgradeID {
		return failure.New(failure.AuditProofInvalid, "event %d is about %s, not %s", e.Seq, e.UpgradeID, u.UpgradeID)
	}
	return about(e, auditlog.UpgradeCanaryFailed)
}

// missed refuses unless u is an emergency, not itself a rollback, whose
// ratification was missed.
func (u *signedMemory) missed(now envelope.Time) error {
	switch {
	case u.RatifyBy == nil || u.Ratification != nil || u.Type == upgrade.TypeRollback:
		return failure.New(failure.NotYetDue, "upgrade %s awaits no ratification, and no failed canary is shown", u.UpgradeID)
	case !now.After(*u.RatifyBy):
		return failure.New(failure.NotYetDue, "emergency %s may be ratified until %s", u.UpgradeID, u.RatifyBy)
	}
	return nil
}
