package workflow_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
)

// An older database than the guard's log stops the engine, also after a
// restart; with the newest one it works again.
func TestHouseOldDatabase(t *testing.T) {
	h := newHouse(t)
	h.run()
	first := h.through(h.draft(nil))
	h.stop()
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	files := func() map[string][]byte {
		found := map[string][]byte{}
		for _, name := range []string{"db", "db-wal"} {
			if data, err := os.ReadFile(filepath.Join(h.dir, name)); err == nil {
				found[name] = data
			}
		}
		return found
	}
	restore := func(backup map[string][]byte) {
		for _, name := range []string{"db", "db-wal", "db-shm"} {
			_ = os.Remove(filepath.Join(h.dir, name))
		}
		for name, data := range backup {
			if err := os.WriteFile(filepath.Join(h.dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := files()
	h.openStore()
	h.engine = h.newEngine()
	h.run()
	h.await(func() bool { return h.engine.Ready() == nil })
	second := h.through(h.draft(first))
	h.stop()
	_ = h.store.Close()
	newest := files()
	restore(old)
	h.openStore()
	size := h.size()
	for range 2 {
		h.engine = h.newEngine()
		h.run()
		h.await(func() bool { return failure.ClassOf(h.engine.Ready()) == failure.AuditFork })
		env := h.seal("ann", "application/vnd.kernelgate.upgrade-manifest.v1+json", h.draft(first))
		if _, err := h.engine.Submit(t.Context(), workflow.KindManifest, env); failure.ClassOf(err) != failure.AuditFork {
			t.Errorf("a record: %v", err)
		}
		if n := h.size(); n != size {
			t.Errorf("the log grew from %d events to %d", size, n)
		}
		h.view(first.UpgradeID) // reading goes on
		h.stop()
	}
	_ = h.store.Close()
	restore(newest)
	h.openStore()
	h.engine = h.newEngine()
	h.run()
	h.await(func() bool { return h.engine.Ready() == nil })
	h.through(h.draft(second))
}

func (h *house) size() (n int64) {
	h.t.Helper()
	if err := h.store.View(context.Background(), func(r workflow.Reader) (err error) { n, err = r.LogSize(); return err }); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// watchers are witnesses that answer as they are told.
type watchers struct {
	err   atomic.Pointer[error]
	asked atomic.Int64
}

func (w *watchers) Cosign(context.Context) error {
	w.asked.Add(1)
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

// An upgrade waits until the log is witnessed; a witness who saw another log
// stops the engine.
func TestHouseWitnesses(t *testing.T) {
	h := newHouse(t)
	w := &watchers{}
	away := errors.New("no witness answers")
	w.err.Store(&away)
	h.engine.Witnesses, h.engine.AwaitWitnesses = w, true
	h.run()
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateApplying)
	h.await(func() bool { return w.asked.Load() > 1 })
	if v := h.view(p.UpgradeID); v.Upgrade.State != workflow.StateApplying {
		t.Fatalf("applied without witnesses: %s", v.Upgrade.State)
	}
	w.err.Store(nil)
	h.until(p.UpgradeID, workflow.StateCompleted)
	if err := h.engine.Ready(); err != nil {
		t.Fatal(err)
	}
	fork := failure.New(failure.AuditFork, "it has seen another log")
	w.err.Store(&fork)
	q := h.propose(h.draft(p))
	for _, who := range []string{"bob", "cleo", "dan"} { // the engine may have stopped by then
		_, _ = h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(q, who, false))
	}
	h.await(func() bool { return failure.ClassOf(h.engine.Ready()) == failure.AuditFork })
	if h.depot.applied[q.UpgradeID] != 0 {
		t.Error("an upgrade was deployed under a forked log")
	}
}
