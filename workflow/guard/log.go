package guard

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// maxSkew is how far, in seconds, a decision may be from the guard's clock.
const maxSkew = 300

// start locks the guard and tells the time. Where err is nil, the caller
// calls g.mu.Unlock.
func (g *Guard) start() (envelope.Time, error) {
	g.mu.Lock()
	err := g.ready()
	var now envelope.Time
	if err == nil {
		now, err = g.now()
	}
	if err != nil {
		g.mu.Unlock()
	}
	return now, err
}

// AcceptRegistry takes the next registry document into force. The newest one
// again is no error.
func (g *Guard) AcceptRegistry(_ context.Context, entry keyregistry.SignedDocument) error {
	now, err := g.start()
	if err != nil {
		return err
	}
	defer g.mu.Unlock()
	last := g.mem.regs.Last()
	if envelope.DigestOf(entry.Document) == last.Digest() {
		return nil
	}
	next, err := keyregistry.AcceptLive(last, g.config.Root, entry, g.suspended, now)
	if err != nil {
		return err
	}
	if err := g.requirePolicy(next); err != nil {
		return err
	}
	return g.remember(now, change{Registry: &entry})
}

// Suspend takes a key out of use at once. The same suspension again is no error.
func (g *Guard) Suspend(_ context.Context, env envelope.Envelope) error {
	now, err := g.start()
	if err != nil {
		return err
	}
	defer g.mu.Unlock()
	for _, old := range g.mem.suspensions {
		if old.PayloadDigest() == env.PayloadDigest() {
			return nil
		}
	}
	s, err := g.mem.regs.Last().AcceptSuspension(env, g.suspended, now)
	if err != nil {
		return err
	}
	if g.suspended(s.SuspendedKeyID) {
		return nil // one suspension is enough, and the memory does not grow by more
	}
	return g.remember(now, change{Suspension: &env})
}

// DelegateEventKey introduces an event key that is valid from now, for at most
// auditlog.MaxEventKeySeconds. A key is introduced once: the same request again
// gets the same delegation, another is already_signed.
func (g *Guard) DelegateEventKey(ctx context.Context, publicKey []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error) {
	none := envelope.Envelope{}
	now, err := g.start()
	if err != nil {
		return none, err
	}
	defer g.mu.Unlock()
	public, err := signer.ParsePublicKey(publicKey)
	if err != nil {
		return none, failure.As(failure.FieldInvalid, err)
	}
	d := auditlog.Delegation{
		EventKeyID: envelope.KeyID(public.KeyID()), Instance: instance, KernelID: g.mem.regs.Last().KernelID(),
		NotAfter: notAfter, NotBefore: notBefore, PublicKey: publicKey,
	}
	if old, ok := g.mem.eventKeys[d.EventKeyID]; ok {
		if old.key.Instance == instance && old.key.NotBefore == notBefore && old.key.NotAfter == notAfter {
			return old.Delegation, nil
		}
		return none, failure.New(failure.AlreadySigned, "event key %s was introduced before; make a new one", d.EventKeyID)
	}
	if err := g.mayDelegate(&d, now); err != nil {
		return none, err
	}
	env, err := auditlog.SealDelegation(ctx, g.config.Audit, d)
	if err != nil {
		return none, unavailable(err)
	}
	counts := g.counted(func(c *workflow.GuardCounts) *int64 { return &c.Delegations })
	if err := g.remember(now, change{EventKey: &env, Counts: counts}); err != nil {
		return none, err
	}
	return env, nil
}

func (g *Guard) mayDelegate(d *auditlog.Delegation, now envelope.Time) error {
	if s := d.NotBefore.Sub(now); s < -maxSkew || s > maxSkew {
		return failure.New(failure.TimeInvalid, "an event key is valid from now, %s, not from %s", now, d.NotBefore)
	}
	if s := d.NotAfter.Sub(d.NotBefore); s < 0 || s > auditlog.MaxEventKeySeconds {
		return failure.New(failure.FieldInvalid, "an event key is valid for at most %d seconds", auditlog.MaxEventKeySeconds)
	}
	for _, reg := range g.mem.regs {
		if _, known := reg.Lookup(d.EventKeyID); known == nil {
			return failure.New(failure.RoleNotAllowed, "a key of the registry is no event key")
		}
	}
	if g.mem.forgetEventKeys(); len(g.mem.eventKeys) >= maxEventKeys {
		return failure.New(failure.RoleNotAllowed, "%d event keys are known, and none is old enough to be forgotten; find out who asks for so many", len(g.mem.eventKeys))
	}
	return g.requireOwn(g.config.Audit, keyregistry.KindKernelAudit, now)
}

// SignCheckpoint signs a tree that continues the last one that was signed.
func (g *Guard) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (string, error) {
	now, err := g.start()
	if err != nil {
		return "", err
	}
	defer g.mu.Unlock()
	if size < 1 || size > envelope.MaxInt {
		return "", failure.New(failure.FieldInvalid, "a log of %d events has no checkpoint", size)
	}
	last := g.mem.checkpoint()
	next := auditlog.Checkpoint{Origin: last.Origin, Size: size, Root: root}
	if err := auditlog.CheckConsistency(last, next, consistency); err != nil {
		return "", err
	}
	if err := g.requireOwn(g.config.Audit, keyregistry.KindKernelAudit, now); err != nil {
		return "", err
	}
	text, err := auditlog.SignCheckpoint(ctx, g.config.Audit, g.mem.regs.Last().KernelID(), size, root)
	if err != nil {
		return "", unavailable(err)
	}
	counts := g.counted(func(c *workflow.GuardCounts) *int64 { return &c.Checkpoints })
	if err := g.remember(now, change{Checkpoint: &checkpointMemory{size, root[:]}, Counts: counts}); err != nil {
		return "", err
	}
	return text, nil
}

// Outcome puts back what was live before a record whose deploy failed. Told
// twice it changes nothing.
func (g *Guard) Outcome(_ context.Context, proof workflow.LogProof) error {
	now, err := g.start()
	if err != nil {
		return err
	}
	defer g.mu.Unlock()
	e, err := g.event(proof, now)
	if err != nil {
		return err
	}
	if err := about(e, auditlog.UpgradeApplied, auditlog.UpgradeEmergencyApplied, auditlog.UpgradeApplyFailed); err != nil {
		return err
	}
	c, err := g.mem.outcome(e)
	if err != nil || c == nil {
		return err
	}
	return g.remember(now, *c)
}

// outcome is the change that a sealed outcome makes; nil where it is known.
func (m *memory) outcome(e auditlog.Event) (*change, error) {
	old := m.upgrades[e.UpgradeID]
	if old == nil {
		return nil, failure.New(failure.BindingMismatch, "upgrade %s has no record", e.UpgradeID)
	}
	if old.Outcome != "" {
		return nil, nil
	}
	u := *old
	u.Outcome = e.Type
	c := &change{Upgrade: &u}
	if e.Type != auditlog.UpgradeApplyFailed {
		return c, nil
	}
	// An emergency still bars further ones: that its deploy failed is the
	// gateway's word alone, and must not buy another change without a quorum.
	if t := m.target(u.Target); t.LiveUpgrade == e.UpgradeID {
		t.Live, t.LiveUpgrade = u.Previous, u.PreviousID
		c.Target = &t
	}
	return c, nil
}
