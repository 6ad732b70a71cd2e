package guard

import (
	"context"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// state is what Status tells, as of the last change: whoever asks whether the
// guard lives does not wait for a device, or behind others.
type state struct {
	status workflow.GuardStatus
	clock  envelope.Time // the highest that was used
	err    error         // why it is not ready, the clock apart
}

// publish is called after each change, under the lock.
func (g *Guard) publish() {
	s := &state{err: g.ready()}
	if m := g.mem; m != nil {
		last := m.regs.Last()
		s.clock = m.clock
		s.status = workflow.GuardStatus{KernelID: last.KernelID(), RegistryVersion: last.Version(), RegistryDigest: last.Digest(), CheckpointSize: m.last.Size, Counts: m.counts, Signatures: m.counts.Sum()}
	}
	g.status.Store(s)
}

// Status needs no key, and waits for nothing.
func (g *Guard) Status(context.Context) (workflow.GuardStatus, error) {
	now := g.status.Load()
	s, err := now.status, now.err
	if err == nil {
		_, err = g.tell(now.clock)
	}
	s.Ready = err == nil
	if err != nil {
		s.Reason = err.Error()
	}
	return s, nil
}
