package guard

import (
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// auditKeys are the Kernel's audit keys of every document that was accepted: a
// checkpoint by a key that left the registry since is still the guard's own.
func (g *Guard) auditKeys(regs keyregistry.Chain) []keyregistry.Key {
	var keys []keyregistry.Key
	seen := map[envelope.KeyID]bool{}
	for _, reg := range regs {
		for _, key := range reg.Document().Kernel.Audit {
			if !seen[key.KeyID] {
				seen[key.KeyID] = true
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// behind says why the memory is older than a checkpoint that only this
// Kernel's guard can have signed; "" where it is not.
func (m *memory) behind(c auditlog.Checkpoint) string {
	switch {
	case c.Size > m.last.Size:
		return fmt.Sprintf("its memory ends at a log of %d events, behind a checkpoint of %d that this Kernel signed: it is an old copy", m.last.Size, c.Size)
	case c.Size == m.last.Size && c.Size > 0 && !m.last.is(c):
		return fmt.Sprintf("its memory holds another log of %d events than a checkpoint that this Kernel signed", c.Size)
	}
	return ""
}

// ownCheckpoint verifies a note: of this Kernel, and one that the guard signed.
// A note that proves the memory old stops the guard for good.
func (g *Guard) ownCheckpoint(note string, now envelope.Time) (auditlog.Checkpoint, error) {
	last := g.mem.regs.Last()
	c, err := auditlog.OpenCheckpoint(note, last.KernelID(), last.Document().Kernel.Audit)
	if err != nil {
		// A key that left the registry may have left it because others got it.
		// What it signed counts only while the guard knows it by itself.
		if c, err = auditlog.OpenCheckpoint(note, last.KernelID(), g.auditKeys(g.mem.regs)); err != nil {
			return c, err
		}
		for _, r := range g.mem.recent {
			if r.is(c) {
				return c, nil
			}
		}
		return c, failure.New(failure.AuditProofInvalid, "the checkpoint of %d events is under a key that left the registry, and not among the guard's last; prove it under a newer one", c.Size)
	}
	return c, g.notBehind(c, now)
}

// notBehind remembers that the memory is old, where a checkpoint proves it: a
// restart must not forget that.
func (g *Guard) notBehind(c auditlog.Checkpoint, now envelope.Time) error {
	reason := g.mem.behind(c)
	if reason == "" {
		return nil
	}
	if err := g.remember(now, change{Stale: &reason}); err != nil {
		return err
	}
	return g.ready() // no verdict on the case: it is to be asked again after the rebuild
}

// event verifies a proof: an event of this Kernel, in a checkpoint that the
// guard signed, signed inside its validity by an event key that the guard
// introduced.
func (g *Guard) event(proof workflow.LogProof, now envelope.Time) (auditlog.Event, error) {
	c, err := g.ownCheckpoint(proof.Checkpoint, now)
	if err != nil {
		return auditlog.Event{}, err
	}
	e, env, err := proof.Entry.Verify(c)
	if err != nil {
		return e, err
	}
	if e.KernelID != g.mem.regs.Last().KernelID() {
		return e, failure.New(failure.AuditProofInvalid, "the event is of another Kernel")
	}
	known, ok := g.mem.eventKeys[e.KeyID]
	if !ok {
		return e, failure.New(failure.AuditProofInvalid, "event %d is signed by key %s, which the guard has not introduced as an event key, or too long ago", e.Seq, e.KeyID)
	}
	if err := auditlog.VerifyEvent(e, env, known.key); err != nil {
		return e, failure.Reclass(failure.AuditProofInvalid, err)
	}
	return e, nil
}

// about refuses an event that is not of one of the types.
func about(e auditlog.Event, types ...string) error {
	for _, t := range types {
		if e.Type == t {
			return nil
		}
	}
	return failure.New(failure.AuditProofInvalid, "event %d is a %s, where one of %v is needed", e.Seq, e.Type, types)
}
