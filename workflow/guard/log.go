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
	if envelope.DigestOf(entry.Document) == g.regs.Last().Digest() {
		return nil
	}
	next, err := keyregistry.AcceptLive(g.regs.Last(), g.config.Root, entry, g.suspended, now)
	if err != nil {
		return err
	}
	err = g.remember(now, func(m *memory) {
		m.Registry = append(m.Registry, entry)
		// A suspension holds while the document that it names is in force.
		m.Suspensions, m.Suspended = nil, map[envelope.KeyID]bool{}
	})
	if err == nil {
		g.regs = append(g.regs, next)
	}
	return err
}

// Suspend takes a key out of use at once. The same suspension again is no error.
func (g *Guard) Suspend(_ context.Context, env envelope.Envelope) error {
	now, err := g.start()
	if err != nil {
		return err
	}
	defer g.mu.Unlock()
	for _, old := range g.mem.Suspensions {
		if old.PayloadDigest() == env.PayloadDigest() {
			return nil
		}
	}
	s, err := g.regs.Last().AcceptSuspension(env, g.suspended, now)
	if err != nil {
		return err
	}
	return g.remember(now, func(m *memory) {
		m.Suspensions = append(m.Suspensions, env)
		m.Suspended[s.SuspendedKeyID] = true
	})
}

// DelegateEventKey introduces an event key that is valid from now, for at most
// auditlog.MaxEventKeySeconds.
func (g *Guard) DelegateEventKey(ctx context.Context, publicKey []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error) {
	now, err := g.start()
	if err != nil {
		return envelope.Envelope{}, err
	}
	defer g.mu.Unlock()
	public, err := signer.ParsePublicKey(publicKey)
	if err != nil {
		return envelope.Envelope{}, failure.As(failure.FieldInvalid, err)
	}
	if d := notBefore.Sub(now); d < -maxSkew || d > maxSkew {
		return envelope.Envelope{}, failure.New(failure.TimeInvalid, "an event key is valid from now, %s, not from %s", now, notBefore)
	}
	if err := g.requireOwn(g.config.Audit, keyregistry.KindKernelAudit, now); err != nil {
		return envelope.Envelope{}, err
	}
	if _, known := g.regs.Last().Lookup(envelope.KeyID(public.KeyID())); known == nil {
		return envelope.Envelope{}, failure.New(failure.RoleNotAllowed, "a key of the registry is no event key")
	}
	env, err := auditlog.SealDelegation(ctx, g.config.Audit, auditlog.Delegation{
		EventKeyID: envelope.KeyID(public.KeyID()), Instance: instance, KernelID: g.regs.Last().KernelID(),
		NotAfter: notAfter, NotBefore: notBefore, PublicKey: publicKey,
	})
	if err != nil {
		return envelope.Envelope{}, unavailable(err)
	}
	g.signatures++
	if err := g.remember(now, func(*memory) {}); err != nil {
		return envelope.Envelope{}, err
	}
	return env, nil
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
	kernelID := g.regs.Last().KernelID()
	last := auditlog.Checkpoint{Origin: auditlog.Origin(kernelID), Size: g.mem.Size, Root: g.mem.root()}
	next := auditlog.Checkpoint{Origin: last.Origin, Size: size, Root: root}
	if err := auditlog.CheckConsistency(last, next, consistency); err != nil {
		return "", err
	}
	if err := g.requireOwn(g.config.Audit, keyregistry.KindKernelAudit, now); err != nil {
		return "", err
	}
	text, err := auditlog.SignCheckpoint(ctx, g.config.Audit, kernelID, size, root)
	if err != nil {
		return "", unavailable(err)
	}
	g.signatures++
	if err := g.remember(now, func(m *memory) { m.Size, m.Root = size, root[:] }); err != nil {
		return "", err
	}
	return text, nil
}

// event verifies a proof: an event of this Kernel in a checkpoint under the
// guard's own audit key, of a tree that the memory knows.
func (g *Guard) event(proof workflow.LogProof) (auditlog.Event, error) {
	kernelID := g.regs.Last().KernelID()
	entry, err := g.regs.Last().Lookup(envelope.KeyID(g.config.Audit.Public().KeyID()))
	if err != nil {
		return auditlog.Event{}, err
	}
	c, err := auditlog.OpenCheckpoint(proof.Checkpoint, kernelID, []keyregistry.Key{*entry.Key})
	if err != nil {
		return auditlog.Event{}, err
	}
	if c.Size > g.mem.Size || c.Size == g.mem.Size && c.Root != g.mem.root() {
		return auditlog.Event{}, failure.New(failure.AuditFork, "the guard's memory of %d events is behind or beside its checkpoint of %d; rebuild it from the log", g.mem.Size, c.Size)
	}
	e, _, err := proof.Entry.Verify(c)
	if err != nil {
		return e, err
	}
	if e.KernelID != kernelID {
		return e, failure.New(failure.AuditProofInvalid, "the event is of another Kernel")
	}
	return e, nil
}

// Outcome puts back what was live before a record whose deploy failed. Told
// twice, or of an upgrade that is live no more, it changes nothing.
func (g *Guard) Outcome(_ context.Context, proof workflow.LogProof) error {
	now, err := g.start()
	if err != nil {
		return err
	}
	defer g.mu.Unlock()
	e, err := g.event(proof)
	if err != nil {
		return err
	}
	if e.Type != auditlog.UpgradeApplied && e.Type != auditlog.UpgradeApplyFailed {
		return failure.New(failure.AuditProofInvalid, "event %s is no outcome", e.Type)
	}
	u := g.mem.Upgrades[e.UpgradeID]
	if u == nil {
		return failure.New(failure.BindingMismatch, "upgrade %s has no record", e.UpgradeID)
	}
	if u.Outcome != "" {
		return nil
	}
	return g.remember(now, func(m *memory) {
		u := m.Upgrades[e.UpgradeID]
		u.Outcome = e.Type
		t := m.target(u.Manifest.Target.Name)
		if e.Type == auditlog.UpgradeApplyFailed && t.LiveUpgrade == e.UpgradeID {
			t.Live, t.LiveUpgrade = u.Previous, u.PreviousID
		}
	})
}
