package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// Many writers share transactions; one's failure undoes nothing of the others'.
func groupCommit(t *testing.T, open Open) {
	s := open.with(t)
	refused := errors.New("refused")
	const writers, each = 32, 8
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				err := s.Update(context.Background(), func(tx workflow.Tx) error {
					if _, err := tx.AddRecord(record(fmt.Sprint(w, " ", i))); err != nil {
						return err
					}
					if err := appendEvent(tx); err != nil {
						return err
					}
					if w%4 == 0 {
						return refused
					}
					if w%4 == 1 && i == 0 {
						panic("a bug")
					}
					return nil
				})
				failed := w%4 == 0 || w%4 == 1 && i == 0
				if (err != nil) != failed || w%4 == 0 && !errors.Is(err, refused) {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	group.Wait()
	const kept = writers*each - writers/4*each - writers/4
	CheckChain(t, s, kept)
	err := s.View(context.Background(), func(r workflow.Reader) error {
		records, err := r.Records(id)
		if len(records) != kept {
			t.Errorf("%d records are kept, not %d", len(records), kept)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of callers who share transactions some pass over an error of the database.
// What they did is written whole where they are told so, and else not at all;
// the others' is.
func passedOver(t *testing.T, open Open) {
	s := open.with(t)
	entry := registrytest.New(envelope.TimeOf(time.Now())).Entries[0]
	update(t, s, func(tx workflow.Tx) error { return tx.AddRegistry(1, entry) })
	const callers, each = 16, 8
	var kept atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := range each {
				err := s.Update(context.Background(), func(tx workflow.Tx) error {
					if caller%8 == 0 {
						_ = tx.AddRegistry(1, entry) // the key is there
						_, _ = tx.AddRecord(record(fmt.Sprint(caller, " ", i)))
						_ = appendEvent(tx)
						return nil
					}
					if _, err := tx.AddRecord(record(fmt.Sprint(caller, " ", i))); err != nil {
						return err
					}
					return appendEvent(tx)
				})
				if err == nil {
					kept.Add(1)
				} else if caller%8 != 0 {
					t.Errorf("caller %d, who did nothing wrong: %v", caller, err)
				}
			}
		})
	}
	group.Wait()
	CheckChain(t, s, kept.Load())
	view(t, s, func(r workflow.Reader) error {
		records, err := r.Records(id)
		if int64(len(records)) != kept.Load() {
			t.Errorf("%d records, where %d callers were told that theirs is written", len(records), kept.Load())
		}
		return err
	})
}

func reopening(t *testing.T, open Open) {
	var size int64
	var root tlog.Hash
	for round := range int64(3) {
		s := open.again(t)
		for range 5 {
			if err := s.Update(context.Background(), appendEvent); err != nil {
				t.Fatal(err)
			}
		}
		CheckChain(t, s, 5*(round+1))
		err := s.View(context.Background(), func(r workflow.Reader) error {
			proof, err := r.ConsistencyProof(size, 5*(round+1))
			if err != nil {
				return err
			}
			next, err := r.TreeRoot(5 * (round + 1))
			if err != nil {
				return err
			}
			last := auditlog.Checkpoint{Size: size, Root: root}
			size, root = 5*(round+1), next
			return auditlog.CheckConsistency(last, auditlog.Checkpoint{Size: size, Root: root}, proof)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open.again(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), appendEvent); err == nil {
		t.Errorf("Update after Close: %v", err)
	}
}

// CheckChain reads the whole log: every link, every leaf in the tree.
func CheckChain(t testing.TB, s Store, want int64) {
	t.Helper()
	err := s.View(context.Background(), func(r workflow.Reader) error {
		size, err := r.LogSize()
		if err != nil || size != want {
			return fmt.Errorf("the log has %d events, not %d: %w", size, want, err)
		}
		root, err := r.TreeRoot(size)
		if err != nil {
			return err
		}
		events, err := r.Events(0, int(size)+1)
		if err != nil {
			return err
		}
		var previous envelope.Digest
		for i, e := range events {
			if e.Seq != int64(i) || e.Event.Seq != e.Seq || e.Event.PrevHash != previous {
				return fmt.Errorf("event %d does not follow the one before", i)
			}
			previous = e.Hash
			proof, err := r.InclusionProof(e.Seq, size)
			if err != nil {
				return err
			}
			entry := auditlog.Entry{Index: e.Seq, Leaf: e.Leaf, Proof: proof}
			if _, _, err := entry.Verify(auditlog.Checkpoint{Size: size, Root: root}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
