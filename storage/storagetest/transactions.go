package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// again opens a store that the caller closes.
func (open Open) again(t *testing.T) Store {
	t.Helper()
	s, err := open(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return s
}

// undone: an error undoes all that its function did, and no more; also where
// the function passes over an error of the database.
func undone(t *testing.T, open Open) {
	s := open.with(t)
	update(t, s, func(tx workflow.Tx) error { return tx.PutCheckpoint("one", 1) })
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		if err := tx.PutCursor("bus", 7); err != nil {
			return err
		}
		if err := appendEvent(tx); err != nil {
			return err
		}
		if _, err := tx.TreeRoot(1); err != nil { // has the event written
			return err
		}
		return errors.New("no")
	})
	if err == nil || err.Error() != "no" {
		t.Errorf("the function's error came back as %v", err)
	}
	view(t, s, func(r workflow.Reader) error {
		next, err := r.Cursor("bus")
		if next != 0 {
			t.Errorf("the cursor is %d", next)
		}
		return err
	})
	CheckChain(t, s, 0)
	_ = s.Update(context.Background(), func(tx workflow.Tx) error {
		_ = tx.AddSpent("web", "2026-05", cost("EUR", -1))
		_ = tx.AddRegistry(1, registrytest.New(envelope.TimeOf(time.Now())).Entries[0])
		_ = tx.AddRegistry(1, registrytest.New(envelope.TimeOf(time.Now())).Entries[0]) // the key again
		return nil
	})
	update(t, s, appendEvent)
	CheckChain(t, s, 1)
}

// left: who has gone before his turn has nothing written.
func left(t *testing.T, open Open) {
	s := open.with(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Update(ctx, appendEvent); !errors.Is(err, context.Canceled) {
		t.Errorf("Update of one who left: %v", err)
	}
	CheckChain(t, s, 0)
}

// snapshot: a View sees one state, whatever is written meanwhile.
func snapshot(t *testing.T, open Open) {
	s := open.with(t)
	update(t, s, appendEvent)
	view(t, s, func(r workflow.Reader) error {
		for range 2 {
			size, err := r.LogSize()
			if err != nil || size != 1 {
				return fmt.Errorf("the log has %d events: %w", size, err)
			}
			update(t, s, appendEvent)
		}
		return nil
	})
	CheckChain(t, s, 3)
}

// timeStands: a clock that steps back does not turn the log's time.
func timeStands(t *testing.T, open Open) {
	now := time.Unix(1_800_000_000, 0)
	var mu sync.Mutex
	s := open.at(t, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	for _, step := range []time.Duration{0, time.Minute, -time.Hour, time.Second} {
		mu.Lock()
		now = now.Add(step)
		mu.Unlock()
		update(t, s, appendEvent)
	}
	view(t, s, func(r workflow.Reader) error {
		events, err := r.Events(0, 10)
		if err != nil || len(events) != 4 {
			return fmt.Errorf("%d events: %w", len(events), err)
		}
		if events[2].Event.Time != events[1].Event.Time || events[1].Event.Time.Sub(events[0].Event.Time) != 60 {
			t.Errorf("the times are %s, %s, %s", events[0].Event.Time, events[1].Event.Time, events[2].Event.Time)
		}
		return nil
	})
}

// twoStores append at once, each with its own event key: one chain, no fork.
func twoStores(t *testing.T, open Open) {
	stores := []Store{open.with(t), open.with(t)}
	const writers, each = 8, 25
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for n := range each {
				err := stores[i%2].Update(context.Background(), func(tx workflow.Tx) error {
					if _, err := tx.AddRecord(record(fmt.Sprint(i, " ", n))); err != nil {
						return err
					}
					return appendEvent(tx)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	keys := map[envelope.KeyID]int{}
	for _, s := range stores {
		CheckChain(t, s, writers*each)
	}
	view(t, stores[0], func(r workflow.Reader) error {
		events, err := r.Events(0, writers*each)
		for _, e := range events {
			keys[e.Event.KeyID]++
		}
		return err
	})
	if len(keys) != 2 {
		t.Errorf("%d keys signed", len(keys))
	}
}

// oneClaim: of two stores that claim the same rows at once one gets each.
func oneClaim(t *testing.T, open Open) {
	stores := []Store{open.with(t), open.with(t)}
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	const total = 60
	update(t, stores[0], func(tx workflow.Tx) error {
		for i := range total {
			row := workflow.Upgrade{ID: envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-%012d", i)), State: workflow.StateApplying, CreatedAt: now, UpdatedAt: now, NextAt: &now, ExpiresAt: now}
			if err := tx.PutUpgrade(row); err != nil {
				return err
			}
		}
		return nil
	})
	var mu sync.Mutex
	claimed := map[envelope.UUID]int{}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 10 {
				err := stores[i%2].Update(context.Background(), func(tx workflow.Tx) error {
					list, err := tx.Claim(now, now.Add(60), fmt.Sprint("instance ", i%2), 3)
					mu.Lock()
					defer mu.Unlock()
					for _, u := range list {
						claimed[u.ID]++
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if len(claimed) != total {
		t.Errorf("%d rows are claimed, not %d", len(claimed), total)
	}
	for row, n := range claimed {
		if n != 1 {
			t.Errorf("%s is claimed %d times", row, n)
		}
	}
}

// leaves: as many as the caller asks for, over more than one page.
func leaves(t *testing.T, open Open) {
	s := open.with(t)
	const total = 2100
	update(t, s, func(tx workflow.Tx) error {
		for range total {
			if err := appendEvent(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, end := range []int64{0, 1, 1000, 2000, total, total + 5} {
		n := int64(0)
		for leaf, err := range s.Leaves(context.Background(), end) {
			if err != nil {
				t.Fatal(err)
			}
			e, _, err := auditlog.ParseLeaf(leaf)
			if err != nil || e.Seq != n {
				t.Fatalf("leaf %d is of event %d: %v", n, e.Seq, err)
			}
			n++
		}
		if n != min(end, total) {
			t.Errorf("%d leaves below %d", n, end)
		}
	}
}

// oneSession: what one store's people signed in with, another knows, and of an
// invitation that both are shown one gets it.
func oneSession(t *testing.T, open Open) {
	ctx := context.Background()
	one, two := open.with(t), open.with(t)
	_, hash := account.NewSecret()
	if err := one.PutSecret(ctx, account.Invitation, hash, "ryan", []byte("ryan"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if body, _, err := two.Secret(ctx, account.Invitation, hash); err != nil || string(body) != "ryan" {
		t.Errorf("the other store has %q: %v", body, err)
	}
	var taken atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if _, err := []Store{one, two}[i%2].TakeSecret(ctx, account.Invitation, hash); err == nil {
				taken.Add(1)
			}
		})
	}
	if group.Wait(); taken.Load() != 1 {
		t.Errorf("%d took one invitation", taken.Load())
	}
}

// oneRow: two stores change one row many times at once, and no change is lost.
func oneRow(t *testing.T, open Open) {
	ctx := context.Background()
	stores := []Store{open.with(t), open.with(t)}
	const callers, each = 8, 10
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for range each {
				err := stores[caller%2].ChangeSecret(ctx, account.Session, "row", "ryan", time.Now().Add(time.Hour), func(body []byte) ([]byte, error) {
					return append(body, '+'), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for _, s := range stores {
		if body, _, err := s.Secret(ctx, account.Session, "row"); err != nil || len(body) != callers*each {
			t.Errorf("%d of %d changes are there: %v", len(body), callers*each, err)
		}
	}
}
