package guard

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// take plays one event again. The event's own place, time and signature are
// verified beside it.
func (r *replay) take(f *frame) error {
	e, _, err := auditlog.ParseLeaf(f.Leaf)
	if err != nil {
		return err
	}
	if err := r.event(e, f); err != nil {
		return failure.New(failure.ClassOf(failure.As(failure.AuditChainBroken, err)), "event %d, %s: %s", e.Seq, e.Type, failure.DetailOf(err))
	}
	return nil
}

func (r *replay) event(e auditlog.Event, f *frame) error {
	if len(r.m.regs) == 0 && e.Type != auditlog.RegistryUpdated && e.Type != auditlog.KeyDelegated {
		return failure.New(failure.RegistryChainBroken, "the log does not begin with registry version 1")
	}
	switch e.Type {
	case auditlog.RegistryUpdated:
		return r.registry(e)
	case auditlog.RegistryKeySuspended:
		return r.suspension(e, f)
	case auditlog.KeyDelegated:
		return r.delegation(e)
	case auditlog.UpgradeCreated:
		if e.Actor == upgrade.KernelID {
			return r.rollback(e, f)
		}
	case auditlog.UpgradeApplying:
		return r.applying(e, f)
	case auditlog.UpgradeRatified:
		return r.ratified(e, f)
	case auditlog.UpgradeApplied, auditlog.UpgradeEmergencyApplied, auditlog.UpgradeApplyFailed:
		return r.outcome(e)
	case auditlog.UpgradeCanaryFailed:
		return r.canaryFailed(e)
	case auditlog.GuardDenied:
		r.denied(e.UpgradeID)
	}
	return nil
}

func (r *replay) apply(e auditlog.Event, c change) error {
	c.Clock = e.Time
	return r.m.apply(r.root, &c)
}

func (r *replay) registry(e auditlog.Event) error {
	n := len(r.m.registry)
	if n == len(r.chain) || envelope.DigestOf(r.chain[n].Document).String() != e.Data.Text(auditlog.DataRecordDigest) {
		return failure.New(failure.RegistryChainBroken, "it is not about version %d of the source's documents", n+1)
	}
	var last *keyregistry.Registry
	if n > 0 {
		last = r.m.regs.Last()
	}
	next, err := keyregistry.Accept(last, r.root, r.chain[n])
	if err != nil {
		return err
	}
	// Without the rule of the live clock, but no signer was suspended.
	suspended := func(id envelope.KeyID) bool { return r.m.suspended[id] }
	if _, err := keyregistry.AcceptLive(last, r.root, r.chain[n], suspended, next.Document().IssuedAt); err != nil {
		return err
	}
	return r.apply(e, change{Registry: &r.chain[n]})
}

// named is the record that the event names.
func named(e auditlog.Event, f *frame) (envelope.Envelope, error) {
	if f.Record == nil || f.Record.PayloadDigest().String() != e.Data.Text(auditlog.DataRecordDigest) {
		return envelope.Envelope{}, failure.New(failure.AuditChainBroken, "the record %s: %w", e.Data.Text(auditlog.DataRecordDigest), errNoRecord)
	}
	return *f.Record, nil
}

func (r *replay) suspension(e auditlog.Event, f *frame) error {
	env, err := named(e, f)
	if err != nil {
		return err
	}
	suspended := func(id envelope.KeyID) bool { return r.m.suspended[id] }
	if _, err := r.m.regs.Last().AcceptSuspension(env, suspended, e.Time); err != nil {
		return err
	}
	return r.apply(e, change{Suspension: &env})
}

func (r *replay) delegation(e auditlog.Event) error {
	env, err := e.Delegation()
	if err != nil {
		return err
	}
	counts := r.m.counts
	counts.Delegations++
	return r.apply(e, change{EventKey: &env, Counts: &counts})
}

func (r *replay) rollback(e auditlog.Event, f *frame) error {
	env, err := named(e, f)
	if err != nil {
		return err
	}
	m, err := upgrade.VerifyManifest(r.m.regs.Last(), env, e.Time.Add(upgrade.Skew))
	if err != nil {
		return err
	}
	if m.ProposedBy != upgrade.KernelID || m.UpgradeID != e.UpgradeID {
		return failure.New(failure.BindingMismatch, "the manifest is not the Kernel's rollback %s", e.UpgradeID)
	}
	old := r.m.upgrades[m.Rollback.UpgradeID]
	if old == nil {
		return failure.New(failure.BindingMismatch, "upgrade %s has no record", m.Rollback.UpgradeID)
	}
	if old.Rollback != nil && old.Rollback.PayloadDigest() != env.PayloadDigest() {
		return failure.New(failure.AlreadySigned, "upgrade %s has two rollback manifests of the Kernel", old.UpgradeID)
	}
	if err := upgrade.CheckRollbackOf(m, old.manifest()); err != nil {
		return err
	}
	u, counts := *old, r.m.counts
	u.Rollback = &env
	counts.Rollbacks++
	return r.apply(e, change{Upgrade: &u, Counts: &counts})
}

func (r *replay) bundle(event auditlog.Event, f *frame) (*upgrade.QuorumBundle, error) {
	b, err := upgrade.ParseQuorumBundle(f.Bundle)
	if err != nil {
		return nil, err
	}
	if b.Digest().String() != event.Data.Text(auditlog.DataBundleDigest) {
		return nil, failure.New(failure.AuditChainBroken, "the bundle %s: %w", event.Data.Text(auditlog.DataBundleDigest), errNoRecord)
	}
	return b, nil
}

// applying: what the guard signed, or may have signed. What it cannot have
// signed by the rules, and nobody shows a signature of, it did not.
func (r *replay) applying(e auditlog.Event, f *frame) error {
	b, err := r.bundle(e, f)
	if err != nil {
		return err
	}
	v, err := r.judge(e, b)
	if err != nil && f.Signed == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if old := r.m.upgrades[e.UpgradeID]; old != nil && old.BundleDigest != v.BundleDigest {
		if f.Signed == nil {
			return nil
		}
		return failure.New(failure.AlreadySigned, "upgrade %s was applied under another bundle before, %s", e.UpgradeID, old.BundleDigest)
	} else if old != nil {
		return nil // shown twice
	}
	c, counts := r.m.record(v), r.m.counts
	counts.Records++
	c.Counts = &counts
	if f.Signed != nil {
		if err := upgrade.VerifyRecord(v, *f.Signed); err != nil {
			return err
		}
		c.Upgrade.Record = f.Signed
		delete(r.before, c.Upgrade.PreviousID) // what it was signed on top of was signed
	} else {
		r.before[e.UpgradeID] = r.m.target(v.Manifest.Target.Name)
	}
	c.Clock = later(e.Time, v.DecidedAt)
	return r.m.apply(r.root, &c)
}

// judge is what the guard checked when it signed, as of then.
func (r *replay) judge(e auditlog.Event, b *upgrade.QuorumBundle) (*upgrade.Verdict, error) {
	v, err := upgrade.VerifyBundle(r.m.regs, b)
	if err != nil {
		return nil, err
	}
	if !upgrade.Announces(e, auditlog.UpgradeApplying, v) {
		return nil, failure.New(failure.AuditProofInvalid, "it is not about its bundle, or far from %s", v.DecidedAt)
	}
	if err := r.m.inForce(v); err != nil {
		return nil, err
	}
	if old := r.m.upgrades[e.UpgradeID]; old != nil {
		return v, nil
	}
	return v, r.m.checkTarget(v, b, v.DecidedAt)
}

func (r *replay) ratified(e auditlog.Event, f *frame) error {
	b, err := r.bundle(e, f)
	if err != nil {
		return err
	}
	u := r.m.upgrades[e.UpgradeID]
	v, err := r.judgeRatification(e, u, b)
	if err != nil && f.Signed == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if old := u.Ratification; old != nil && old.BundleDigest != v.BundleDigest && f.Signed != nil {
		return failure.New(failure.AlreadySigned, "emergency %s was ratified under another bundle before, %s", e.UpgradeID, old.BundleDigest)
	} else if old != nil {
		return nil
	}
	before := r.m.target(u.Target)
	c, counts := r.m.ratify(u, v), r.m.counts
	counts.Ratifications++
	c.Counts = &counts
	if f.Signed != nil {
		if err := upgrade.VerifyRatificationRecord(v, *f.Signed, u.RecordDigest); err != nil {
			return err
		}
		c.Upgrade.Ratification.Record = f.Signed
	} else {
		r.before[e.UpgradeID] = before
	}
	c.Clock = later(e.Time, v.DecidedAt)
	return r.m.apply(r.root, &c)
}

func (r *replay) judgeRatification(e auditlog.Event, u *signedMemory, b *upgrade.QuorumBundle) (*upgrade.Verdict, error) {
	if u == nil || u.RatifyBy == nil {
		return nil, failure.New(failure.EmergencyNotAllowed, "no emergency %s was signed", e.UpgradeID)
	}
	v, err := upgrade.VerifyRatification(r.m.regs, u.emergency(), b)
	if err != nil {
		return nil, err
	}
	if !upgrade.Announces(e, auditlog.UpgradeRatified, v) {
		return nil, failure.New(failure.AuditProofInvalid, "it is not about its bundle, or far from %s", v.DecidedAt)
	}
	return v, r.m.inForce(v)
}

// denied undoes what was perhaps signed: the guard said no. Where the target
// has moved on since, it said yes: the word of the log's author is not enough.
func (r *replay) denied(id envelope.UUID) {
	before, pending := r.before[id]
	u := r.m.upgrades[id]
	if !pending || u == nil {
		return
	}
	delete(r.before, id)
	live := id
	if u.Ratification != nil {
		live = before.LiveUpgrade
	}
	if r.m.target(before.Name).LiveUpgrade != live {
		return
	}
	r.m.targets[before.Name] = before
	if u.Ratification != nil {
		next := *u
		next.Ratification = nil
		r.m.upgrades[id] = &next
		r.m.counts.Ratifications--
		return
	}
	delete(r.m.upgrades, id)
	r.m.counts.Records--
}

// outcome: whoever deployed had the record, so the source must have it.
func (r *replay) outcome(e auditlog.Event) error {
	u := r.m.upgrades[e.UpgradeID]
	if u == nil || u.Record == nil {
		return failure.New(failure.AuditChainBroken, "the record of %s, which was deployed: %w", e.UpgradeID, errNoRecord)
	}
	c, err := r.m.outcome(e)
	if err != nil || c == nil {
		return err
	}
	return r.apply(e, *c)
}

func (r *replay) canaryFailed(e auditlog.Event) error {
	old := r.m.upgrades[e.UpgradeID]
	if old == nil {
		return nil
	}
	u := *old
	u.CanaryFailed = true
	return r.apply(e, change{Upgrade: &u})
}

// peaks are the roots of a growing tree's full subtrees, the largest first.
type peaks struct {
	size   int64
	hashes []tlog.Hash
}

func (p *peaks) add(h tlog.Hash) {
	p.size++
	for range bits.TrailingZeros64(uint64(p.size)) {
		last := len(p.hashes) - 1
		h = tlog.NodeHash(p.hashes[last], h)
		p.hashes = p.hashes[:last]
	}
	p.hashes = append(p.hashes, h)
}

// root is the RFC 6962 root of a tree that is not empty.
func (p *peaks) root() tlog.Hash {
	last := len(p.hashes) - 1
	root := p.hashes[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(p.hashes[i], root)
	}
	return root
}
