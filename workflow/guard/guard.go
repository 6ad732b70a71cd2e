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
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// Config is what a guard is made of.
type Config struct {
	Root       envelope.Digest // the pinned digest of registry version 1
	MemoryPath string
	Records    signer.Signer    // a kernel.records key
	Audit      signer.Signer    // a kernel.audit key, Ed25519
	Clock      func() time.Time // time.Now, outside tests
	Policy     workflow.Policy  // needed where the registry pins a policyDigest; may be nil
	// Kept are checkpoints (signed notes) that the operator kept, or that a
	// witness has. A memory behind one of them signs nothing until rebuilt, and
	// is rebuilt only from a log that continues each.
	Kept []string
	// Witnesses, where set, must have cosigned the checkpoint of a log that the
	// memory is rebuilt from.
	Witnesses *auditlog.WitnessPolicy
	// Rebuild says that the operator wants the memory rebuilt: the guard signs
	// nothing until it is. Without it nobody can replace a memory.
	Rebuild bool
	// Log, where set, has a line for each signature and refusal of a Handler: a
	// gateway that was taken over would not tell of them.
	Log *slog.Logger
}

// Guard implements workflow.Guard in the process that holds the keys. It is
// safe for concurrent use and does one thing at a time.
type Guard struct {
	config Config
	disk   *journal

	mu         sync.Mutex
	mem        *memory // nil: not initialised
	rebuilding bool    // the operator asked for it, and it is not done
	building   bool    // a rebuild is under way
	broken     error   // a write whose outcome is not known

	status    atomic.Pointer[state]
	snapshots sync.WaitGroup // at most one is being written
	closing   atomic.Bool
}

var _ workflow.Guard = (*Guard)(nil)

// Init makes the first memory of a new Kernel from its registry's version 1.
// It refuses where a memory exists: a lost one is rebuilt, never begun anew.
func Init(config Config, entry keyregistry.SignedDocument) error {
	return initialise(config, osFiles{}, entry)
}

func initialise(config Config, fsys files, entry keyregistry.SignedDocument) error {
	j, err := openJournal(config.MemoryPath, fsys)
	if err != nil {
		return err
	}
	defer func() { _ = j.close() }()
	old, err := j.load(config.Root)
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
	m := newMemory()
	if err := m.apply(config.Root, &change{Clock: now, Registry: &entry}); err != nil {
		return err
	}
	return j.replace(m.changes)
}

// Open opens the memory, under an exclusive lock. A guard without a memory, or
// with one that is known to be behind, opens, says so, and signs nothing.
func Open(config Config) (*Guard, error) { return open(config, osFiles{}) }

func open(config Config, fsys files) (*Guard, error) {
	j, err := openJournal(config.MemoryPath, fsys)
	if err != nil {
		return nil, err
	}
	g := &Guard{config: config, disk: j, rebuilding: config.Rebuild}
	if g.mem, err = j.load(config.Root); err == nil && g.mem != nil {
		err = g.checkKept()
	}
	if err != nil && config.Rebuild && g.mem == nil {
		err = nil // damaged: it is what the operator wants replaced
	}
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	g.publish()
	return g, nil
}

// checkKept compares the memory with what the operator kept.
func (g *Guard) checkKept() error {
	for _, text := range g.config.Kept {
		c, err := auditlog.OpenCheckpoint(text, g.mem.regs.Last().KernelID(), g.auditKeys(g.mem.regs))
		if err != nil {
			return fmt.Errorf("guard: a kept checkpoint: %w", err)
		}
		if reason := g.mem.behind(c); reason != "" && g.mem.stale == "" {
			g.mem.stale = reason
		}
	}
	return nil
}

// Close gives up the lock. The signers are their opener's to close.
func (g *Guard) Close() error {
	g.mu.Lock()
	g.closing.Store(true) // under the lock: no snapshot is begun from here on
	g.mu.Unlock()
	g.snapshots.Wait() // nobody writes to a file that the next guard opens
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.disk.close()
}

// ready refuses while the guard has no memory, or one that it cannot trust.
func (g *Guard) ready() error {
	switch {
	case g.broken != nil:
		return fmt.Errorf("%w: its memory could not be written, restart it: %w", workflow.ErrGuardUnavailable, g.broken)
	case g.rebuilding:
		return fmt.Errorf("%w: its memory is to be rebuilt from the log first", workflow.ErrGuardUnavailable)
	case g.mem == nil:
		return fmt.Errorf("%w: its memory is empty; initialise a new Kernel, or start it for rebuilding and rebuild it from the log", workflow.ErrGuardUnavailable)
	case g.mem.stale != "":
		return fmt.Errorf("%w: %s; start it for rebuilding and rebuild it from the log", workflow.ErrGuardUnavailable, g.mem.stale)
	}
	return nil
}

// now is the clock, refused while it is behind the highest that was used.
func (g *Guard) now() (envelope.Time, error) { return g.tell(g.mem.clock) }

func (g *Guard) tell(used envelope.Time) (envelope.Time, error) {
	now := envelope.TimeOf(g.config.Clock())
	if now.Before(used) {
		return now, failure.New(failure.TimeInvalid, "the guard's clock says %s, behind %s which it has used; set the clock right", now, used)
	}
	return now, nil
}

// remember makes a change durable, and then the guard's.
func (g *Guard) remember(now envelope.Time, c change) error {
	defer g.publish()
	c.Clock = now
	if now.Before(g.mem.clock) {
		c.Clock = g.mem.clock
	}
	line, end, err := g.disk.end.line(&c)
	if err != nil {
		return unavailable(err) // nothing was written
	}
	if err = g.disk.append(line, end); err == nil {
		err = g.mem.apply(g.config.Root, &c)
	}
	if err != nil {
		g.broken = err
		return unavailable(err)
	}
	if next := g.disk.next; next != nil {
		next.since = append(next.since, &c)
	} else if g.disk.due() && !g.closing.Load() {
		g.compact()
	}
	return nil
}

func (g *Guard) suspended(id envelope.KeyID) bool { return g.mem.suspended[id] }

// counted is the memory's counts with one more.
func (g *Guard) counted(kind func(*workflow.GuardCounts) *int64) *workflow.GuardCounts {
	counts := g.mem.counts
	*kind(&counts)++
	return &counts
}

// seal signs what the guard composed. It is nobody's before it is remembered.
func (g *Guard) seal(ctx context.Context, s signer.Signer, payloadType string, v any) (envelope.Envelope, error) {
	env, err := envelope.Seal(ctx, s, payloadType, v)
	return env, unavailable(err)
}

// requireOwn refuses to sign with a key that the newest document does not
// list for the purpose, or that is outside its validity.
func (g *Guard) requireOwn(s signer.Signer, kind keyregistry.Kind, now envelope.Time) error {
	entry, err := g.mem.regs.Last().Lookup(envelope.KeyID(s.Public().KeyID()))
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
	if err == nil || failure.ClassOf(err) != "" || errors.Is(err, workflow.ErrGuardUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", workflow.ErrGuardUnavailable, err)
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
