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

// SignRecord signs the AppliedUpgradeRecord of a case. The same bundle asked
// again gets the same envelope, at any time.
func (g *Guard) SignRecord(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	none := envelope.Envelope{}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.ready(); err != nil {
		return none, err
	}
	if old := g.mem.upgrades[b.Quorum.UpgradeID]; old != nil {
		if old.BundleDigest != b.Digest() {
			return none, failure.New(failure.AlreadySigned, "upgrade %s has a record of another bundle, %s", b.Quorum.UpgradeID, old.BundleDigest)
		}
		if old.Record != nil {
			return *old.Record, nil
		}
		return g.resign(ctx, &b, *old, proof)
	}
	now, err := g.now()
	if err != nil {
		return none, err
	}
	v, err := upgrade.VerifyBundle(g.mem.regs, &b)
	if err != nil {
		return none, err
	}
	if err := g.judge(ctx, v, &b, now, proof, auditlog.UpgradeApplying); err != nil {
		return none, err
	}
	if err := g.mem.checkTarget(v, &b, now); err != nil {
		return none, err
	}
	env, err := g.sealRecord(ctx, v)
	if err != nil {
		return none, err
	}
	c := g.mem.record(v)
	c.Upgrade.Record = &env
	c.Counts = g.counted(func(c *workflow.GuardCounts) *int64 { return &c.Records })
	if err := g.remember(now, c); err != nil {
		return none, err
	}
	return env, nil
}

func (g *Guard) sealRecord(ctx context.Context, v *upgrade.Verdict) (envelope.Envelope, error) {
	env, err := g.seal(ctx, g.config.Records, envelope.TypeInToto, v.Compose())
	if err != nil {
		return env, err
	}
	return env, upgrade.VerifyRecord(v, env)
}

// resign signs again what the log shows as perhaps signed, and whose envelope
// was lost with an older memory: the same bundle, so the same words.
// The rebuilt memory cannot tell what the guard's own policy said then, so it
// is asked, as of then.
func (g *Guard) resign(ctx context.Context, b *upgrade.QuorumBundle, u signedMemory, proof workflow.LogProof) (envelope.Envelope, error) {
	v, err := upgrade.VerifyBundle(g.mem.regs, b)
	if err != nil {
		return envelope.Envelope{}, err
	}
	if v.Registry.Rules().PolicyDigest != nil {
		e, err := g.announced(proof, g.mem.clock, auditlog.UpgradeApplying, v)
		if err != nil {
			return envelope.Envelope{}, err
		}
		if err := g.askPolicy(ctx, v, b, e); err != nil {
			return envelope.Envelope{}, err
		}
	}
	env, err := g.sealRecord(ctx, v)
	if err != nil {
		return envelope.Envelope{}, err
	}
	u.Record = &env
	if err := g.remember(g.mem.clock, change{Upgrade: &u}); err != nil {
		return envelope.Envelope{}, err
	}
	return env, nil
}

// record is what a record changes: the target is at its patch from now on.
func (m *memory) record(v *upgrade.Verdict) change {
	t := m.target(v.Manifest.Target.Name)
	id := v.Manifest.UpgradeID
	statement, err := envelope.Canonical(v.Compose())
	if err != nil {
		panic("guard: " + err.Error()) // made of what was parsed
	}
	u := &signedMemory{
		UpgradeID: id, Type: v.Manifest.Type, Target: t.Name, PatchHash: v.Manifest.PatchHash, BaseRevision: v.Manifest.BaseRevision, Cost: v.Manifest.Impact.Cost,
		ManifestDigest: v.ManifestDigest, Signed: v.Signed, BundleDigest: v.BundleDigest, RecordDigest: envelope.DigestOf(statement),
		DecidedAt: v.DecidedAt, RatifyBy: v.RatifyBy, Previous: t.Live, PreviousID: t.LiveUpgrade,
	}
	switch v.Case {
	case upgrade.CaseEmergency:
		t.Open = append(t.Open, id)
	case upgrade.CaseQuorum:
		t.Open = nil
	}
	t.Live, t.LiveUpgrade = upgrade.RevisionOf(v.Manifest.PatchHash), id
	return change{Upgrade: u, Target: &t}
}

// judge checks what the guard alone can know of any case: the time, the
// registry document in force, suspensions, the log, its own policy and key.
func (g *Guard) judge(ctx context.Context, v *upgrade.Verdict, b *upgrade.QuorumBundle, now envelope.Time, proof workflow.LogProof, eventType string) error {
	if d := v.DecidedAt.Sub(now); d < -maxSkew || d > maxSkew {
		return failure.New(failure.TimeInvalid, "decided at %s, too far from now, %s; decide again", v.DecidedAt, now)
	}
	if err := g.mem.inForce(v); err != nil {
		return err
	}
	e, err := g.announced(proof, now, eventType, v)
	if err != nil {
		return err
	}
	if err := g.askPolicy(ctx, v, b, e); err != nil {
		return err
	}
	return g.requireOwn(g.config.Records, keyregistry.KindKernelRecords, now)
}

// announced is the event of the log that names the verdict's bundle.
func (g *Guard) announced(proof workflow.LogProof, now envelope.Time, eventType string, v *upgrade.Verdict) (auditlog.Event, error) {
	e, err := g.event(proof, now)
	if err == nil && !upgrade.Announces(e, eventType, v) {
		err = failure.New(failure.AuditProofInvalid, "event %d is not the %s of bundle %s near %s", e.Seq, eventType, v.BundleDigest, v.DecidedAt)
	}
	return e, err
}

// inForce refuses what another registry document than the newest decides, or
// what rests on a suspended key.
func (m *memory) inForce(v *upgrade.Verdict) error {
	if last := m.regs.Last(); v.Registry.Digest() != last.Digest() {
		return failure.New(failure.BindingMismatch, "decided under registry version %d, while version %d is in force; propose it again, to be approved under that", v.Registry.Version(), last.Version())
	}
	for _, id := range v.Keys {
		if m.suspended[id] {
			return failure.New(failure.KeySuspended, "key %s is suspended", id)
		}
	}
	return nil
}
