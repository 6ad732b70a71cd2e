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
	id := b.Quorum.UpgradeID
	u := g.mem.Upgrades[id]
	if u == nil || u.Bundle == nil {
		return none, failure.New(failure.EmergencyNotAllowed, "no emergency %s was signed", id)
	}
	if old := u.Ratification; old != nil {
		if old.BundleDigest == b.Digest() {
			return old.Record, nil
		}
		return none, failure.New(failure.AlreadySigned, "emergency %s was ratified by another bundle, %s", id, old.BundleDigest)
	}
	now, err := g.now()
	if err != nil {
		return none, err
	}
	emergency, err := upgrade.VerifyBundle(g.regs, u.Bundle)
	if err != nil {
		return none, err
	}
	v, err := upgrade.VerifyRatification(g.regs, emergency, &b)
	if err != nil {
		return none, err
	}
	if now.After(*u.RatifyBy) {
		return none, failure.New(failure.RatificationLate, "it is %s, after %s", now, u.RatifyBy)
	}
	if err := g.judge(ctx, v, &b, now, proof, auditlog.UpgradeRatified); err != nil {
		return none, err
	}
	record := u.Record.PayloadDigest()
	env, err := g.seal(ctx, g.config.Records, envelope.TypeInToto, v.ComposeRatification(record))
	if err != nil {
		return none, err
	}
	if err := upgrade.VerifyRatificationRecord(v, env, record); err != nil {
		return none, err
	}
	err = g.remember(now, func(m *memory) {
		m.Upgrades[id].Ratification = &ratificationMemory{BundleDigest: v.BundleDigest, Record: env}
		m.target(v.Manifest.Target.Name).close(id)
	})
	if err != nil {
		return none, err
	}
	return env, nil
}

func (t *targetMemory) close(id envelope.UUID) {
	var open []envelope.UUID
	for _, o := range t.Open {
		if o != id {
			open = append(open, o)
		}
	}
	t.Open = open
}

// SignRollback signs the Kernel's one rollback manifest of the live upgrade u,
// once its canary failed, by the proof, or its ratification was missed.
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
	u := g.mem.Upgrades[m.Rollback.UpgradeID]
	if u == nil {
		return none, failure.New(failure.BindingMismatch, "upgrade %s has no record", m.Rollback.UpgradeID)
	}
	m.KeyID = envelope.KeyID(g.config.Records.Public().KeyID())
	if u.Rollback != nil {
		return u.sameRollback(m)
	}
	if err := g.mayRollBack(&m, u, now, proof); err != nil {
		return none, err
	}
	env, err := g.seal(ctx, g.config.Records, envelope.TypeManifest, m)
	if err != nil {
		return none, err
	}
	// Verified as anybody will: the manifest's form, and the Kernel's key.
	if _, err := upgrade.VerifyManifest(g.regs.Last(), env, now); err != nil {
		return none, err
	}
	err = g.remember(now, func(mem *memory) {
		u := mem.Upgrades[m.Rollback.UpgradeID]
		u.Rollback = &env
		u.CanaryFailed = u.CanaryFailed || proof != nil
	})
	if err != nil {
		return none, err
	}
	return env, nil
}

// sameRollback is the manifest that was signed, where m is its content.
func (u *signedMemory) sameRollback(m upgrade.Manifest) (envelope.Envelope, error) {
	old, err := upgrade.OpenManifest(*u.Rollback)
	if err != nil {
		return envelope.Envelope{}, err
	}
	m.KeyID = old.KeyID
	payload, err := envelope.Canonical(m)
	if err != nil || envelope.DigestOf(payload) != u.Rollback.PayloadDigest() {
		return envelope.Envelope{}, failure.New(failure.AlreadySigned, "another rollback manifest of %s was signed, %s", m.Rollback.UpgradeID, u.Rollback.PayloadDigest())
	}
	return *u.Rollback, nil
}

func (g *Guard) mayRollBack(m *upgrade.Manifest, u *signedMemory, now envelope.Time, proof *workflow.LogProof) error {
	id := m.Rollback.UpgradeID
	if t := g.mem.Targets[u.Manifest.Target.Name]; t == nil || t.LiveUpgrade != id {
		return failure.New(failure.BaseRevisionMoved, "upgrade %s is not live", id)
	}
	if g.mem.Upgrades[m.UpgradeID] != nil {
		return failure.New(failure.AlreadySigned, "upgrade %s exists; a rollback is a new upgrade", m.UpgradeID)
	}
	if err := upgrade.CheckRollbackOf(m, &u.Manifest); err != nil {
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
	e, err := g.event(*proof)
	if err != nil {
		return err
	}
	if e.Type != auditlog.UpgradeCanaryFailed || e.UpgradeID != id {
		return failure.New(failure.AuditProofInvalid, "event %d does not say that the canary of %s failed", e.Seq, id)
	}
	return nil
}

// missed refuses unless u is an emergency, not itself a rollback, whose
// ratification was missed.
func (u *signedMemory) missed(now envelope.Time) error {
	switch {
	case u.RatifyBy == nil || u.Ratification != nil || u.Manifest.Type == upgrade.TypeRollback:
		return failure.New(failure.NotYetDue, "upgrade %s awaits no ratification, and no failed canary is shown", u.Manifest.UpgradeID)
	case !now.After(*u.RatifyBy):
		return failure.New(failure.NotYetDue, "emergency %s may be ratified until %s", u.Manifest.UpgradeID, u.RatifyBy)
	}
	return nil
}
