package storage_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

const id envelope.UUID = "0b7f1d5e-3c1a-4c57-9d0e-000000000001"

func openStore(t *testing.T, path string) *storage.SQLite {
	t.Helper()
	s, err := storage.OpenSQLite(context.Background(), path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := filekey.New(private, signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	s.SetEventKey("k1", key)
	return s
}

func newStore(t *testing.T) (*storage.SQLite, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernelgate.db")
	s := openStore(t, path)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, path
}

func appendEvent(tx workflow.Tx) error {
	_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, UpgradeID: id, Actor: "ryan", Data: auditlog.Data{"n": int64(1)}})
	return err
}

func record(text string) workflow.Record {
	return workflow.Record{Digest: envelope.DigestOf([]byte(text)), UpgradeID: id, Kind: "approval", Person: "ryan", Body: []byte(text)}
}

// checkChain reads the whole log: every link, every leaf in the tree.
func checkChain(t *testing.T, s *storage.SQLite, want int64) {
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

// Many writers share transactions; one's failure undoes nothing of the others'.
func TestGroupCommit(t *testing.T) {
	s, _ := newStore(t)
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
	checkChain(t, s, kept)
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

func TestLogGoesOnAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a file?with #odd name.db")
	var size int64
	var root tlog.Hash
	for round := range int64(3) {
		s := openStore(t, path)
		for range 5 {
			if err := s.Update(context.Background(), appendEvent); err != nil {
				t.Fatal(err)
			}
		}
		checkChain(t, s, 5*(round+1))
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
	s := openStore(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), appendEvent); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
}

// What was accepted cannot be changed by mistake, nor by INSERT OR REPLACE,
// which asks no DELETE trigger.
func TestAppendOnly(t *testing.T) {
	s, path := newStore(t)
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		env := envelope.Envelope{Payload: []byte("{}"), PayloadType: "x", Signatures: []envelope.Signature{{KeyID: envelope.KeyID(strings.Repeat("0", 64)), Sig: []byte{1}}}}
		if _, err := tx.AddRecord(record("a")); err != nil {
			return err
		}
		if err := tx.AddSuspension(env, envelope.Digest{}); err != nil {
			return err
		}
		for _, note := range []string{"note", "note and a cosignature"} {
			if err := tx.PutCheckpoint(note, 1); err != nil {
				return err
			}
		}
		return appendEvent(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO registry VALUES (1, x'00', x'00')"); err != nil {
		t.Fatal(err)
	}
	for table, column := range map[string]string{"records": "kind", "registry": "document", "suspensions": "registry_digest", "events": "hash", "tree": "hash", "checkpoints": "note", "cosigned": "note"} {
		for _, statement := range []string{
			"UPDATE " + table + " SET " + column + " = " + column,
			"DELETE FROM " + table,
			"INSERT OR REPLACE INTO " + table + " SELECT * FROM " + table,
		} {
			if _, err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
}

func TestRows(t *testing.T) {
	s, _ := newStore(t)
	ctx := context.Background()
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	const total = 25
	err := s.Update(ctx, func(tx workflow.Tx) error {
		for i := range total {
			u := workflow.Upgrade{
				ID: envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-%012d", i)), Target: "web", Type: "code", State: workflow.StateDraft,
				ManifestDigest: envelope.DigestOf([]byte{byte(i)}), ProposedBy: "ops", CreatedAt: now.Add(int64(i / 2)), UpdatedAt: now, ExpiresAt: now.Add(100),
			}
			if i%5 == 0 {
				due := now.Add(int64(i))
				u.NextAt, u.State = &due, workflow.StateApplying
			}
			if err := tx.PutUpgrade(u); err != nil {
				return err
			}
		}
		return tx.PutTarget(workflow.Target{Name: "web", Live: "none", Applying: id})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(ctx, func(r workflow.Reader) error {
		seen := map[envelope.UUID]bool{}
		for cursor := ""; ; {
			list, next, err := r.Upgrades(workflow.Page{Cursor: cursor, Limit: 4})
			if err != nil {
				return err
			}
			for _, u := range list {
				if seen[u.ID] {
					t.Errorf("%s stands on two pages", u.ID)
				}
				seen[u.ID] = true
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if len(seen) != total {
			t.Errorf("%d upgrades are listed, not %d", len(seen), total)
		}
		due, err := r.Due(now.Add(10), now.Add(70), 10)
		if len(due) != 3 || due[0].NextAt == nil || *due[0].NextAt != now {
			t.Errorf("due are %v", due)
		}
		if err != nil {
			return err
		}
		applying, _, err := r.Upgrades(workflow.Page{States: []workflow.State{workflow.StateApplying}, Target: "web"})
		if len(applying) != 5 {
			t.Errorf("%d upgrades are applying, not 5", len(applying))
		}
		if target, err := r.Target("web"); err != nil || target.Applying != id {
			t.Errorf("the target is %v, %v", target, err)
		}
		if target, err := r.Target("new"); err != nil || target.Live != "none" {
			t.Errorf("a target never seen is %v, %v", target, err)
		}
		if _, err := r.Upgrade(id[:35] + "f"); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("an upgrade never seen: %v", err)
		}
		if _, _, err := r.Upgrades(workflow.Page{Cursor: "x"}); failure.ClassOf(err) != failure.FieldInvalid {
			t.Errorf("a forged cursor: %v", err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecordIsAddedOnce(t *testing.T) {
	s, _ := newStore(t)
	for i := range 2 {
		err := s.Update(context.Background(), func(tx workflow.Tx) error {
			added, err := tx.AddRecord(record("a"))
			if added != (i == 0) {
				t.Errorf("round %d: added is %v", i, added)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
