package guard

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The world itself is a source.
func (w *world) Registry(context.Context) ([]keyregistry.SignedDocument, error) { return w.chain, nil }
func (w *world) Checkpoint(context.Context) (string, int64, error) {
	return w.note, int64(len(w.leaves)), nil
}

func (w *world) Leaves(_ context.Context, size int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range w.leaves[:size] {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

func (w *world) Record(_ context.Context, d envelope.Digest) ([]byte, error) {
	if data, ok := w.records[d]; ok {
		return data, nil
	}
	return nil, workflow.ErrNotFound
}

func (w *world) Signed(_ context.Context, _ envelope.UUID, d envelope.Digest) ([]byte, error) {
	if data, ok := w.signed[d]; ok {
		return data, nil
	}
	return nil, workflow.ErrNotFound
}

// history plays every kind of event that a rebuilt memory rests on.
func (w *world) history() {
	w.deploy(w.quorum(1, upgrade.None))
	w.deploy(w.quorum(2, rev(1)))
	failed := w.quorum(3, rev(2))
	must(w.sign(failed))
	w.ok(w.guard.Outcome(w.t.Context(), w.show(auditlog.UpgradeApplyFailed, failed)))
	e := w.emergency(w.manifest(4, rev(2)))
	w.deploy(e)
	must(w.ratify(w.ratification(e, people[:3]...)))
	w.ok(w.suspend("a5", "a5"))
	w.now = w.now.Add(3600)
	w.succeed(func(*keyregistry.Document) {}, people[:3]...)
	w.ok(w.suspend("a1", "a4"))
	u := w.quorum(5, rev(4))
	w.deploy(u)
	p := w.show(auditlog.UpgradeCanaryFailed, u)
	m := must(w.guard.SignRollback(w.t.Context(), w.kernelRollback(6, 5, rev(4)), &p))
	w.created(m)
	w.deploy(w.agreedOn(m))
	denied := w.quorum(7, rev(1)) // on another base
	w.refused(failure.BaseRevisionMoved, second(w.sign(denied)))
	w.append(auditlog.GuardDenied, denied.Quorum.UpgradeID, nil)
	w.deploy(w.emergency(w.manifest(8, rev(4))))
	w.seal()
}

func (w *world) created(m envelope.Envelope) {
	w.records[m.PayloadDigest()] = m.Bytes()
	id := must(upgrade.OpenManifest(m)).UpgradeID
	w.append(auditlog.UpgradeCreated, id, auditlog.Data{auditlog.DataRecordDigest: m.PayloadDigest().String()})
}

// forget loses the memory, and starts the guard for rebuilding.
func (w *world) forget() {
	_ = w.guard.Close()
	w.ok(os.Remove(w.config.MemoryPath))
	w.config.Rebuild = true
	w.open()
}

// dump is the whole memory in words, in an order of its own.
func dump(m *memory) string {
	var lines []string
	for c := range m.changes {
		c.Counts = nil // of checkpoints the log knows nothing
		if c.Checkpoint != nil && c.Checkpoint.Size != m.last.Size {
			continue
		}
		lines = append(lines, string(must(envelope.Canonical(c))))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

func TestRebuildIsTheSameMemory(t *testing.T) {
	w := newWorld(t)
	w.history()
	want, counts := dump(w.guard.mem), w.guard.mem.counts
	w.forget()
	if s := must(w.guard.Status(t.Context())); s.Ready {
		t.Fatal("ready without a memory")
	}
	w.ok(w.guard.Rebuild(t.Context(), w))
	if got := dump(w.guard.mem); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	counts.Checkpoints = 0
	if w.guard.mem.counts != counts {
		t.Fatalf("counts %+v, not %+v", w.guard.mem.counts, counts)
	}
	w.config.Rebuild = false
	w.reopen()
	if got := dump(w.guard.mem); got != want {
		t.Fatal("the rebuilt memory is not on the disk")
	}
	w.deploy(w.agreed(w.rollback(9, 8, rev(4)))) // and it goes on
}

// An upgrade.applying without outcome counts as signed: its bundle gets the
// same words again, at any time, and another bundle gets nothing.
func TestRebuildPending(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	w.keepBack = true
	b := w.quorum(2, rev(1))
	lost := must(w.sign(b))
	e := w.emergency(w.rollback(3, 2, rev(1)))
	lostEmergency := must(w.sign(e))
	r := w.ratification(e, people[:3]...)
	lostRatification := must(w.ratify(r))
	w.forget()
	w.ok(w.guard.Rebuild(t.Context(), w))
	w.now = w.now.Add(1000000)
	other := w.manifest(2, rev(1))
	other.Rationale = "another"
	w.refused(failure.AlreadySigned, second(w.guard.SignRecord(t.Context(), w.agreed(other), workflow.LogProof{})))
	for range 2 {
		for _, c := range []struct{ got, want envelope.Envelope }{
			{must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{})), lost},
			{must(w.guard.SignRecord(t.Context(), e, workflow.LogProof{})), lostEmergency},
			{must(w.guard.SignRatification(t.Context(), r, workflow.LogProof{})), lostRatification},
		} {
			if !bytes.Equal(c.got.Payload, c.want.Payload) {
				t.Fatal("other words were signed")
			}
		}
	}
	w.reopen()
}

func TestRebuildDenied(t *testing.T) {
	w := newWorld(t)
	w.keepBack = true
	b := w.quorum(1, upgrade.None)
	w.records[b.Digest()] = b.Bytes()
	w.show(auditlog.UpgradeApplying, b)
	w.append(auditlog.GuardDenied, b.Quorum.UpgradeID, nil)
	w.seal()
	w.forget()
	w.ok(w.guard.Rebuild(t.Context(), w))
	w.keepBack = false
	w.deploy(w.quorum(1, upgrade.None))
}

// A denial of what later records were signed on top of is a lie, and buys no
// second signature.
func TestRebuildDeniedTooLate(t *testing.T) {
	for name, after := range map[string]func(*world, upgrade.QuorumBundle){
		"live": func(*world, upgrade.QuorumBundle) {},
		"failed": func(w *world, b upgrade.QuorumBundle) {
			w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, b)))
		},
		"rolled back": func(w *world, _ upgrade.QuorumBundle) { w.deploy(w.agreed(w.rollback(3, 2, rev(1)))) },
		"record lost": func(w *world, b upgrade.QuorumBundle) { delete(w.signed, b.Digest()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.keepBack = true
			must(w.sign(w.quorum(1, upgrade.None)))
			w.keepBack = false
			b := w.quorum(2, rev(1))
			must(w.sign(b))
			after(w, b)
			w.append(auditlog.GuardDenied, uuid(1), nil)
			w.seal()
			want := w.guard.mem.targets["prod"]
			w.forget()
			w.ok(w.guard.Rebuild(t.Context(), w))
			if got := w.guard.mem.targets["prod"]; got.Live != want.Live || got.LiveUpgrade != want.LiveUpgrade {
				t.Fatalf("%+v, not %+v", got, want)
			}
			other := w.manifest(1, upgrade.None)
			other.Rationale = "another"
			w.refused(failure.AlreadySigned, second(w.sign(w.agreed(other))))
		})
	}
}

// A source's documents are accepted as they come, and none is kept that nobody signed.
func TestRebuildFloodedWithDocuments(t *testing.T) {
	w := newWorld(t)
	asked := 0
	_, err := readClaim(func() (*frame, error, bool) {
		asked++
		return &frame{Registry: &w.entry}, nil, asked < 100
	}, w.config.Root)
	if w.refused(failure.RegistryChainBroken, err); asked != 2 {
		t.Fatalf("%d documents were read", asked)
	}
}

func TestRebuildRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		want  failure.Class
		spoil func(w *world)
	}{
		"an event missing":      {failure.AuditChainBroken, func(w *world) { w.leaves = slices.Delete(slices.Clone(w.leaves), 5, 6) }},
		"two events swapped":    {failure.AuditChainBroken, func(w *world) { w.leaves[5], w.leaves[6] = w.leaves[6], w.leaves[5] }},
		"the last event cut":    {failure.AuditProofInvalid, func(w *world) { w.leaves = w.leaves[:len(w.leaves)-1] }},
		"another Kernel's note": {failure.AuditProofInvalid, func(w *world) { w.note = newWorld(t).note }},
		"no registry":           {failure.RegistryRootMismatch, func(w *world) { w.chain = nil }},
		"a registry too few":    {failure.RegistryChainBroken, func(w *world) { w.chain = w.chain[:1] }},
		"a kept checkpoint that it does not continue": {failure.AuditFork, func(w *world) {
			w.guard.config.Kept = []string{must(auditlog.SignCheckpoint(t.Context(), w.keys["audit"], "k1", 4, [32]byte{1}))}
		}},
		"cut behind a kept checkpoint": {failure.AuditFork, func(w *world) {
			w.guard.config.Kept = []string{w.note}
			w.note = must(auditlog.SignCheckpoint(t.Context(), w.keys["audit"], "k1", 6, w.root(6)))
			w.leaves = w.leaves[:6]
		}},
		"another bundle for a digest": {failure.AuditChainBroken, func(w *world) {
			for d := range w.records {
				if _, signed := w.signed[d]; signed {
					w.records[d] = ptr(w.quorum(99, upgrade.None)).Bytes()
				}
			}
		}},
		"a deployed record missing": {failure.AuditChainBroken, func(w *world) { clear(w.signed) }},
		"a record by another key": {failure.KernelSignatureInvalid, func(w *world) {
			for d, data := range w.signed {
				env := must(envelope.Parse(data))
				sig := must(envelope.Sign(t.Context(), w.keys["a1"], env))
				env.Signatures = []envelope.Signature{sig}
				w.signed[d] = env.Bytes()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.history()
			w.forget()
			c.spoil(w)
			w.refused(c.want, w.guard.Rebuild(t.Context(), w))
			if s := must(w.guard.Status(t.Context())); s.Ready {
				t.Fatal("ready after a refused rebuild")
			}
		})
	}
	t.Run("a record missing", func(t *testing.T) {
		w := newWorld(t)
		w.history()
		w.forget()
		clear(w.records)
		if err := w.guard.Rebuild(t.Context(), w); !errors.Is(err, workflow.ErrNotFound) {
			t.Fatal(err)
		}
	})
}

// Nobody but the operator may replace a memory, and never by less.
func TestRebuildOfAnOldMemory(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	w.refused(failure.RoleNotAllowed, w.guard.Rebuild(t.Context(), w))
	old := must(os.ReadFile(w.config.MemoryPath))
	cut, size := w.note, len(w.leaves)
	u := w.quorum(2, rev(1))
	w.deploy(u)
	p := w.show(auditlog.UpgradeCanaryFailed, u)
	m := must(w.guard.SignRollback(t.Context(), w.kernelRollback(6, 2, rev(1)), &p)) // not in the log yet
	w.config.Rebuild = true
	w.reopen()
	if err := second(w.guard.SignRecord(t.Context(), u, p)); !errors.Is(err, workflow.ErrGuardUnavailable) {
		t.Fatal(err)
	}
	short := *w
	short.note, short.leaves = cut, w.leaves[:size]
	w.refused(failure.AuditFork, w.guard.Rebuild(t.Context(), &short))
	w.ok(w.guard.Rebuild(t.Context(), w))
	if again := must(w.guard.SignRollback(t.Context(), w.kernelRollback(7, 2, rev(1)), nil)); again.PayloadDigest() != m.PayloadDigest() {
		t.Fatal("a rollback manifest was forgotten")
	}
	_ = w.guard.Close()
	w.ok(os.WriteFile(w.config.MemoryPath, old, 0o600))
	w.open()
	w.ok(w.guard.Rebuild(t.Context(), w))
	w.refused(failure.AlreadySigned, second(w.guard.SignRecord(t.Context(), w.ratification(u, people[:3]...), p)))
}
