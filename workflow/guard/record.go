package guard

import (
	"context"
	"slices"

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
	if old := g.mem.Upgrades[b.Quorum.UpgradeID]; old != nil && old.signed() {
		if old.BundleDigest == b.Digest() {
			return old.Record, nil
		}
		return none, failure.New(failure.AlreadySigned, "upgrade %s has a record of another bundle, %s", b.Quorum.UpgradeID, old.BundleDigest)
	}
	now, err := g.now()
	if err != nil {
		return none, err
	}
	v, err := upgrade.VerifyBundle(g.regs, &b)
	if err != nil {
		return none, err
	}
	if err := g.judge(ctx, v, &b, now, proof, auditlog.UpgradeApplying); err != nil {
		return none, err
	}
	if err := g.checkTarget(v, &b, now); err != nil {
		return none, err
	}
	env, err := g.seal(ctx, g.config.Records, envelope.TypeInToto, v.Compose())
	if err != nil {
		return none, err
	}
	if err := upgrade.VerifyRecord(v, env); err != nil {
		return none, err
	}
	if err := g.remember(now, func(m *memory) { m.record(v, &b, env) }); err != nil {
		return none, err
	}
	return env, nil
}

func (u *signedMemory) signed() bool { return len(u.Record.Signatures) > 0 }

// record notes a record: the target is at its patch from now on.
func (m *memory) record(v *upgrade.Verdict, b *upgrade.QuorumBundle, env envelope.Envelope) {
	t := m.target(v.Manifest.Target.Name)
	id := v.Manifest.UpgradeID
	u := &signedMemory{
		BundleDigest: v.BundleDigest, Record: env, Manifest: *v.Manifest, DecidedAt: v.DecidedAt, RatifyBy: v.RatifyBy,
		Previous: t.Live, PreviousID: t.LiveUpgrade,
	}
	switch v.Case {
	case upgrade.CaseEmergency:
		u.Bundle = b
		t.Open = append(t.Open, id)
	case upgrade.CaseQuorum:
		t.Open = nil
	}
	m.Upgrades[id] = u
	t.Live, t.LiveUpgrade = upgrade.RevisionOf(v.Manifest.PatchHash), id
}

// judge checks what the guard alone can know of any case: the time, the
// registry document in force, suspensions, the log, its own policy and key.
func (g *Guard) judge(ctx context.Context, v *upgrade.Verdict, b *upgrade.QuorumBundle, now envelope.Time, proof workflow.LogProof, eventType string) error {
	if d := v.DecidedAt.Sub(now); d < -maxSkew || d > maxSkew {
		return failure.New(failure.TimeInvalid, "decided at %s, too far from now, %s; decide again", v.DecidedAt, now)
	}
	if v.Registry.Digest() != g.regs.Last().Digest() {
		return failure.New(failure.BindingMismatch, "decided under registry version %d, while version %d is in force", v.Registry.Version(), g.regs.Last().Version())
	}
	for _, id := range v.Keys {
		if g.suspended(id) {
			return failure.New(failure.KeySuspended, "key %s is suspended", id)
		}
	}
	e, err := g.event(proof)
	if err != nil {
		return err
	}
	if !upgrade.Announces(e, eventType, v) {
		return failure.New(failure.AuditProofInvalid, "event %d is not the %s of bundle %s", e.Seq, eventType, v.BundleDigest)
	}
	if err := g.askPolicy(ctx, v, b); err != nil {
		return err
	}
	return g.requireOwn(g.config.Records, keyregistry.KindKernelRecords, now)
}

// checkTarget checks a case against what was signed before.
func (g *Guard) checkTarget(v *upgrade.Verdict, b *upgrade.QuorumBundle, now envelope.Time) error {
	m := v.Manifest
	t := g.mem.Targets[m.Target.Name]
	if t == nil {
		t = &targetMemory{Live: upgrade.None}
	}
	if m.BaseRevision != t.Live {
		return failure.New(failure.BaseRevisionMoved, "%s is at %s, not at %s", m.Target.Name, t.Live, m.BaseRevision)
	}
	if m.Type == upgrade.TypeRollback {
		if err := g.checkRollback(v, t); err != nil {
			return err
		}
	}
	switch v.Case {
	case upgrade.CaseEmergency:
		return g.checkEmergency(m, t, now)
	case upgrade.CaseAutomatic:
		return g.checkAutomatic(v, b, t, now)
	case upgrade.CasePreapproved:
		return g.checkPreapproved(v, b)
	}
	return nil
}

// checkRollback: a rollback takes back what is live, exactly; and one that the
// Kernel proposes is the one manifest that the guard signed for it.
func (g *Guard) checkRollback(v *upgrade.Verdict, t *targetMemory) error {
	m := v.Manifest
	if m.Rollback.UpgradeID != t.LiveUpgrade {
		return failure.New(failure.BaseRevisionMoved, "the rollback is of %s, while %s is live", m.Rollback.UpgradeID, t.LiveUpgrade)
	}
	u := g.mem.Upgrades[t.LiveUpgrade]
	if err := upgrade.CheckRollbackOf(m, &u.Manifest); err != nil {
		return err
	}
	if m.ProposedBy == upgrade.KernelID && (u.Rollback == nil || u.Rollback.PayloadDigest() != v.ManifestDigest) {
		return failure.New(failure.BindingMismatch, "the guard did not sign this rollback manifest of %s", t.LiveUpgrade)
	}
	return nil
}

// checkEmergency: one emergency at a target until it is ratified or a record
// with a quorum follows, but for one that rolls it back, in time.
func (g *Guard) checkEmergency(m *upgrade.Manifest, t *targetMemory, now envelope.Time) error {
	if len(t.Open) == 0 {
		return nil
	}
	if len(t.Open) > 1 || m.Type != upgrade.TypeRollback || m.Rollback.UpgradeID != t.Open[0] {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s at %s is not ratified", t.Open[0], m.Target.Name)
	}
	if u := g.mem.Upgrades[t.Open[0]]; !now.Before(*u.RatifyBy) {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s was to be ratified by %s; it is rolled back, or a quorum decides", t.Open[0], u.RatifyBy)
	}
	return nil
}

// nested is what was signed for the decision that a rollback rests on.
func (g *Guard) nested(v *upgrade.Verdict, n *upgrade.Nested) (*signedMemory, error) {
	u := g.mem.Upgrades[v.Nested.Manifest.UpgradeID]
	if u == nil || u.BundleDigest != v.Nested.BundleDigest || u.Record.PayloadDigest() != n.Record.PayloadDigest() {
		return nil, failure.New(failure.BindingMismatch, "the earlier decision is not the one that was signed for %s", v.Nested.Manifest.UpgradeID)
	}
	return u, nil
}

func (g *Guard) checkAutomatic(v *upgrade.Verdict, b *upgrade.QuorumBundle, t *targetMemory, now envelope.Time) error {
	u, err := g.nested(v, b.Emergency)
	if err != nil {
		return err
	}
	if u.Ratification != nil || !slices.Contains(t.Open, u.Manifest.UpgradeID) {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s was ratified; people roll it back", u.Manifest.UpgradeID)
	}
	if !now.After(*u.RatifyBy) {
		return failure.New(failure.NotYetDue, "emergency %s may be ratified until %s", u.Manifest.UpgradeID, u.RatifyBy)
	}
	return nil
}

// checkPreapproved: the canary of u is known to have failed, and the people
// who pre-approved its rollback still count.
func (g *Guard) checkPreapproved(v *upgrade.Verdict, b *upgrade.QuorumBundle) error {
	u, err := g.nested(v, b.Preapproval)
	if err != nil {
		return err
	}
	if !u.CanaryFailed {
		return failure.New(failure.NotYetDue, "no sealed event says that the canary of %s failed", u.Manifest.UpgradeID)
	}
	count, nonBrowser := 0, int64(0)
	for _, env := range b.Preapproval.QuorumBundle.Approvals {
		var a upgrade.Approval
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &a); err != nil {
			return err
		}
		if !a.RollbackPreapproved || g.suspended(a.KeyID) {
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

// askPolicy evaluates the policy that the registry pins, where it pins one.
func (g *Guard) askPolicy(ctx context.Context, v *upgrade.Verdict, b *upgrade.QuorumBundle) error {
	pinned := v.Registry.Rules().PolicyDigest
	if pinned == nil || v.Policy == nil {
		return nil
	}
	p := g.config.Policy
	if p == nil || p.Digest() != *pinned {
		return failure.New(failure.PolicyDenied, "the guard does not have policy %s, which the registry pins; give it that one", pinned)
	}
	input := upgrade.PolicyInput{Manifest: *v.Manifest, Case: v.Case, Now: v.DecidedAt, Tests: []upgrade.TestSummary{}, Spent: g.mem.spent(v)}
	for _, env := range b.TestResults {
		r, err := upgrade.VerifyTestResult(v.Registry, env, v.Manifest.PatchHash, v.DecidedAt)
		if err != nil {
			return err
		}
		input.Tests = append(input.Tests, upgrade.TestSummary{Name: r.Name, Result: r.Result})
	}
	verdict, err := p.Evaluate(ctx, input)
	if err != nil {
		return failure.Reclass(failure.PolicyDenied, err)
	}
	if !verdict.Allow {
		return failure.New(failure.PolicyDenied, "the policy, asked by the guard, denies this upgrade")
	}
	return nil
}

// spent is what was signed for the target in the decision's month and did not
// fail, by currency.
func (m *memory) spent(v *upgrade.Verdict) []upgrade.Cost {
	sums := map[string]int64{}
	month := v.DecidedAt.String()[:len("2006-01")]
	for _, u := range m.Upgrades {
		cost := u.Manifest.Impact.Cost
		if cost != nil && u.Manifest.Target.Name == v.Manifest.Target.Name && u.Outcome != auditlog.UpgradeApplyFailed && u.DecidedAt.String()[:len(month)] == month {
			// Both are at most 2^53, and the sum is kept there, so it cannot wrap.
			sums[cost.Currency] = min(sums[cost.Currency]+cost.MinorUnits, envelope.MaxInt)
		}
	}
	spent := []upgrade.Cost{}
	for currency, n := range sums {
		spent = append(spent, upgrade.Cost{Currency: currency, MinorUnits: n})
	}
	slices.SortFunc(spent, func(a, b upgrade.Cost) int {
		if a.Currency < b.Currency {
			return -1
		}
		return 1
	})
	return spent
}
