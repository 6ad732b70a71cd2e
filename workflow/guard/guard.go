// Package guard is the one user of the Kernel's keys (PROTOCOL section 11). It
// takes no order to sign: it is given a case, judges it by its own pinned root,
// registry chain, clock and durable memory, and composes itself what it signs.
//
// Whatever it signs it remembers first: memory is on the disk before the
// signature leaves. Where a write may or may not have happened, the guard
// stops until it is opened again.
package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Config is what a guard is made of.
type Config struct {
	Root       envelope.Digest // the pinned digest of registry version 1
	MemoryPath string
	Records    signer.Signer    // a kernel.records key
	Audit      signer.Signer    // a kernel.audit key, Ed25519
	Clock      func() time.Time // time.Now, outside tests
	Policy     workflow.Policy  // needed where the registry pins a policyDigest; may be nil
}

// Guard implements workflow.Guard in the process that holds the keys. It is
// safe for concurrent use and does one thing at a time.
type Guard struct {
	config Config
	disk   *disk

	mu         sync.Mutex
	mem        *memory // nil: not initialised
	regs       upgrade.Registries
	broken     error // a write whose outcome is not known
	signatures int64
}

var _ workflow.Guard = (*Guard)(nil)

// Init makes the first memory of a new Kernel from its registry's version 1.
// It refuses where a memory exists: a lost one is rebuilt, never begun anew.
func Init(config Config, entry keyregistry.SignedDocument) error {
	d, err := openDisk(config.MemoryPath)
	if err != nil {
		return err
	}
	defer func() { _ = d.close() }()
	old, err := d.load()
	if err != nil {
		return err
	}
	if old != nil {
		return fmt.Errorf("guard: the memory %s exists; a Kernel is initialised once", config.MemoryPath)
	}
	now := envelope.TimeOf(config.Clock())
	if _, err := keyregistry.AcceptLive(nil, config.Root, entry, func(envelope.KeyID) bool { return false }, now); err != nil {
		return err
	}
	return d.save(&memory{
		Clock: now, Registry: []keyregistry.SignedDocument{entry}, Root: make([]byte, 32),
		Suspended: map[envelope.KeyID]bool{}, Targets: map[envelope.ID]*targetMemory{}, Upgrades: map[envelope.UUID]*signedMemory{},
	})
}

// Open opens the memory, under an exclusive lock. A guard without a memory
// opens, says that it is not ready, and signs nothing.
func Open(config Config) (*Guard, error) {
	d, err := openDisk(config.MemoryPath)
	if err != nil {
		return nil, err
	}
	g := &Guard{config: config, disk: d}
	if g.mem, err = d.load(); err == nil && g.mem != nil {
		g.regs, err = upgrade.AcceptAll(config.Root, g.mem.Registry)
	}
	if err != nil {
		_ = d.close()
		return nil, err
	}
	return g, nil
}

// Close gives up the lock. The signers are their opener's to close.
func (g *Guard) Close() error { return g.disk.close() }

// ready refuses while the guard has no memory, or one that it cannot trust.
func (g *Guard) ready() error {
	switch {
	case g.broken != nil:
		return fmt.Errorf("%w: its memory could not be written, restart it: %w", workflow.ErrGuardUnavailable, g.broken)
	case g.mem == nil:
		return fmt.Errorf("%w: its memory is empty; initialise or rebuild it", workflow.ErrGuardUnavailable)
	}
	return nil
}

// now is the clock, refused while it is behind the highest that was used.
func (g *Guard) now() (envelope.Time, error) {
	now := envelope.TimeOf(g.config.Clock())
	if now.Before(g.mem.Clock) {
		return now, failure.New(failure.TimeInvalid, "the guard's clock says %s, behind %s which it has used; set the clock right", now, g.mem.Clock)
	}
	return now, nil
}

// remember changes a copy of the memory and swaps it in once it is durable.
func (g *Guard) remember(now envelope.Time, change func(*memory)) error {
	next, err := g.mem.clone()
	if err != nil {
		return unavailable(err)
	}
	change(next)
	if now.After(next.Clock) {
		next.Clock = now
	}
	if err := g.disk.save(next); err != nil {
		g.broken = err
		return unavailable(err)
	}
	g.mem = next
	return nil
}

func (g *Guard) suspended(id envelope.KeyID) bool { return g.mem.Suspended[id] }

// seal signs what the guard composed.
func (g *Guard) seal(ctx context.Context, s signer.Signer, payloadType string, v any) (envelope.Envelope, error) {
	env, err := envelope.Seal(ctx, s, payloadType, v)
	if err != nil {
		return env, unavailable(err)
	}
	g.signatures++
	return env, nil
}

// requireOwn refuses to sign with a key that the newest document does not
// list for the purpose, or that is outside its validity.
func (g *Guard) requireOwn(s signer.Signer, kind keyregistry.Kind, now envelope.Time) error {
	entry, err := g.regs.Last().Lookup(envelope.KeyID(s.Public().KeyID()))
	if err != nil {
		return err
	}
	if err := entry.Require(keyregistry.KernelHolder, kind); err != nil {
		return err
	}
	return entry.RequireValid(now)
}

// unavailable marks what is no verdict on the case; a verdict passes.
func unavailable(err error) error {
	if failure.ClassOf(err) != "" || errors.Is(err, workflow.ErrGuardUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", workflow.ErrGuardUnavailable, err)
}

// Status needs no key and no clock.
func (g *Guard) Status(context.Context) (workflow.GuardStatus, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := workflow.GuardStatus{Signatures: g.signatures}
	if g.mem != nil {
		last := g.regs.Last()
		s.KernelID, s.RegistryVersion, s.RegistryDigest, s.CheckpointSize = last.KernelID(), last.Version(), last.Digest(), g.mem.Size
	}
	err := g.ready()
	if err == nil {
		_, err = g.now()
	}
	s.Ready = err == nil
	if err != nil {
		s.Reason = err.Error()
	}
	return s, nil
}

// probeMessage is no DSSE encoding and no note, so its signature is of no use.
const probeMessage = "kernelgate guard test signature, good for nothing"

// Probe makes a test signature with each key; the signers check it.
func (g *Guard) Probe(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range []signer.Signer{g.config.Records, g.config.Audit} {
		sig, err := s.Sign(ctx, []byte(probeMessage))
		if err != nil {
			return unavailable(err)
		}
		if err := signer.Verify(s.Algorithm(), s.Public(), []byte(probeMessage), sig); err != nil {
			return unavailable(fmt.Errorf("%w: %s", signer.ErrBadSignature, s.Public().KeyID()))
		}
	}
	return nil
}
