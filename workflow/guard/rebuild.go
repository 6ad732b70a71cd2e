package guard

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow"
)

// Rebuild makes the memory anew from the log and its records (PROTOCOL section
// 11). Nothing of the source is trusted: the whole chain is verified, the tree
// is the one that a checkpoint of the Kernel seals, it continues what the
// operator or a witness kept and what the old memory held, and each record is
// verified by its rules. The operator has to ask for it (Config.Rebuild).
func (g *Guard) Rebuild(ctx context.Context, src Source) error {
	return g.rebuild(ctx, frames(ctx, src))
}

func (g *Guard) rebuild(ctx context.Context, source iter.Seq2[*frame, error]) error {
	old, err := g.beginRebuild()
	if err != nil {
		return err
	}
	m, err := replayAll(ctx, g.config, old, source)
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.publish()
	g.building = false
	if err != nil {
		return err
	}
	if err := g.disk.replace(m.changes); err != nil {
		g.broken = err
		return unavailable(err)
	}
	g.mem, g.rebuilding = m, false
	return nil
}

// beginRebuild allows one rebuild, and only where the operator wants it: a
// gateway alone could bring a cut log, and make the guard forget.
func (g *Guard) beginRebuild() (*memory, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.broken != nil:
		return nil, g.ready()
	case !g.rebuilding:
		return nil, failure.New(failure.RoleNotAllowed, "the guard was not started for rebuilding; its operator has to start it so")
	case g.building:
		return nil, fmt.Errorf("%w: a rebuild is under way", workflow.ErrGuardUnavailable)
	}
	g.building = true
	return g.mem, nil
}

// replayAll verifies the log, and plays it again on the way. What was played
// counts only once the whole log is verified.
func replayAll(ctx context.Context, config Config, old *memory, source iter.Seq2[*frame, error]) (*memory, error) {
	next, stop := iter.Pull2(source)
	defer stop()
	claim, err := readClaim(next, config.Root)
	if err != nil {
		return nil, err
	}
	r := &replay{root: config.Root, m: newMemory(), chain: claim.Registry, before: map[envelope.UUID]targetMemory{}}
	trust := history.Trust{Root: config.Root, Kept: config.Kept, Policy: config.Witnesses}
	verdict, err := history.Verify(ctx, trust, claim, func(yield func([]byte, error) bool) {
		for {
			f, err, ok := next()
			if !ok {
				return
			}
			if err == nil {
				err = r.take(f)
			}
			if err == nil && old != nil {
				err = r.continues(old, f.Leaf)
			}
			if !yield(leafOf(f), err) || err != nil {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return r.end(old, verdict)
}

func leafOf(f *frame) []byte {
	if f == nil {
		return nil
	}
	return f.Leaf
}

// readClaim reads what a source begins with. Each document is accepted as it
// comes: only those who may sign one can have the guard keep it.
func readClaim(next func() (*frame, error, bool), root envelope.Digest) (history.Claim, error) {
	var claim history.Claim
	var last *keyregistry.Registry
	for {
		f, err, ok := next()
		switch {
		case !ok:
			return claim, failure.New(failure.AuditProofInvalid, "the source ends before its checkpoint")
		case err != nil:
			return claim, err
		case f.Registry != nil:
			if last, err = keyregistry.Accept(last, root, *f.Registry); err != nil {
				return claim, err
			}
			claim.Registry = append(claim.Registry, *f.Registry)
		case f.Checkpoint != "":
			claim.Checkpoint = f.Checkpoint
			return claim, nil
		default:
			return claim, failure.New(failure.AuditProofInvalid, "the source does not begin with its registry documents and a checkpoint")
		}
	}
}

// replay is a memory on its way through a log.
type replay struct {
	root   envelope.Digest
	m      *memory
	chain  []keyregistry.SignedDocument
	before map[envelope.UUID]targetMemory // of what was perhaps signed, to undo it
	tree   peaks
	met    bool // the log went through the old memory's checkpoint
}

// continues refuses a log that is another than the old memory's.
func (r *replay) continues(old *memory, leaf []byte) error {
	r.tree.add(auditlog.LeafHash(leaf))
	if r.tree.size != old.last.Size {
		return nil
	}
	if !old.last.is(auditlog.Checkpoint{Size: r.tree.size, Root: r.tree.root()}) {
		return failure.New(failure.AuditFork, "the first %d events are not those that the guard's memory knows", r.tree.size)
	}
	r.met = true
	return nil
}

// end finishes a verified replay, and keeps what the old memory knows beyond
// the log: it was signed, and the log may not show it yet.
func (r *replay) end(old *memory, v *history.Verdict) (*memory, error) {
	m := r.m
	if len(m.registry) != len(r.chain) {
		return nil, failure.New(failure.RegistryChainBroken, "the log shows %d registry documents, and the source has %d", len(m.registry), len(r.chain))
	}
	c := change{Clock: v.To, Checkpoint: &checkpointMemory{v.Size, v.Root[:]}}
	if err := m.apply(r.root, &c); err != nil {
		return nil, err
	}
	m.forgetEventKeys()
	if old == nil {
		return m, nil
	}
	if old.last.Size > 0 && !r.met {
		return nil, failure.New(failure.AuditFork, "the log has %d events, and the guard's memory knows %d: it was cut, or is an older backup", v.Size, old.last.Size)
	}
	return m, r.keep(old)
}

func (r *replay) keep(old *memory) error {
	m := r.m
	for i := range old.registry {
		if i < len(m.registry) {
			if m.regs[i].Digest() != old.regs[i].Digest() {
				return failure.New(failure.RegistryChainBroken, "the guard knows another registry version %d", i+1)
			}
			continue
		}
		if err := m.apply(r.root, &change{Registry: &old.registry[i]}); err != nil {
			return err
		}
	}
	if m.regs.Last().Digest() == old.regs.Last().Digest() {
		for i := range old.suspensions {
			if err := m.applySuspension(old.suspensions[i]); err != nil {
				return err
			}
		}
	}
	for id, k := range old.eventKeys {
		m.eventKeys[id] = k
	}
	for id, u := range old.upgrades {
		now := m.upgrades[id]
		if now == nil || now.BundleDigest != u.BundleDigest {
			return failure.New(failure.AuditFork, "the guard signed a record of %s, and the log does not show it", id)
		}
		if err := r.keepUpgrade(now, u); err != nil {
			return err
		}
	}
	m.clock = later(m.clock, old.clock)
	m.counts.Checkpoints = old.counts.Checkpoints
	m.counts.Delegations = max(m.counts.Delegations, old.counts.Delegations)
	return nil
}

// keepUpgrade keeps the envelopes that the source had lost.
func (r *replay) keepUpgrade(now, old *signedMemory) error {
	u := *now
	if u.Record == nil {
		u.Record = old.Record
	}
	if old.Rollback != nil {
		u.Rollback = old.Rollback
	}
	u.CanaryFailed = u.CanaryFailed || old.CanaryFailed
	if old.Ratification != nil && (u.Ratification == nil || u.Ratification.Record == nil) {
		u.Ratification = old.Ratification
		t := r.m.target(u.Target)
		t.close(u.UpgradeID)
		r.m.targets[t.Name] = t
	}
	return r.m.applyUpgrade(&u)
}

func later(a, b envelope.Time) envelope.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// bundleOf is the bundleDigest that a record of the Kernel names.
func bundleOf(env []byte) (envelope.Digest, error) {
	e, err := envelope.Parse(env)
	if err != nil {
		return envelope.Digest{}, err
	}
	var statement struct {
		Predicate struct {
			BundleDigest envelope.Digest `json:"bundleDigest"`
		} `json:"predicate"`
	}
	err = json.Unmarshal(e.Payload, &statement)
	return statement.Predicate.BundleDigest, err
}

var errNoRecord = errors.New("the source does not have it; it must be found before the memory is rebuilt")
