package storage_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow"
)

// sealed is a database with a whole log, and what its administrator has: the
// file, the gateway's event key, but not the audit key, which the guard holds.
type sealed struct {
	*registrytest.Fixture
	path string
	key  signer.Signer
}

func newSealed(t *testing.T) *sealed {
	t.Helper()
	now := envelope.TimeOf(time.Now())
	w := &sealed{registrytest.New(now), filepath.Join(t.TempDir(), "log.db"), registrytest.Key(signer.Ed25519)}
	w.with(t, func(s *storage.SQLite) {
		update(t, s, func(tx workflow.Tx) error {
			if err := tx.AddRegistry(1, w.Entries[0]); err != nil {
				return err
			}
			env, err := auditlog.SealDelegation(context.Background(), w.Signers[registrytest.KernelAudit], auditlog.Delegation{
				EventKeyID: envelope.KeyID(w.key.Public().KeyID()), Instance: "gateway-1", KernelID: registrytest.KernelID,
				NotBefore: now.Add(-60), NotAfter: now.Add(3600), PublicKey: w.key.Public().DER(),
			})
			if err != nil {
				return err
			}
			_, err = tx.AppendEvent(workflow.EventDraft{Type: auditlog.KeyDelegated, Actor: "kernel", Data: auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())}})
			return err
		})
	})
	return w
}

// with opens the store over the file, and closes it.
func (w *sealed) with(t *testing.T, f func(*storage.SQLite)) {
	t.Helper()
	s, err := storage.OpenSQLite(context.Background(), w.path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s.SetEventKey(registrytest.KernelID, w.key)
	f(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func update(t *testing.T, s *storage.SQLite, f func(workflow.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// grow appends events up to a size, and has them sealed as the guard does:
// it signs whatever tree it is shown, where its memory does not speak against it.
func (w *sealed) grow(t *testing.T, size int64, what string) string {
	t.Helper()
	var note string
	w.with(t, func(s *storage.SQLite) {
		update(t, s, func(tx workflow.Tx) error {
			have, err := tx.LogSize()
			for ; err == nil && have < size; have++ {
				_, err = tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, Actor: "ryan", Data: auditlog.Data{"n": have, "what": what}})
			}
			if err != nil {
				return err
			}
			note, err = w.seal(tx, size)
			return err
		})
	})
	return note
}

func (w *sealed) seal(tx workflow.Tx, size int64) (string, error) {
	root, err := tx.TreeRoot(size)
	if err != nil {
		return "", err
	}
	note, err := auditlog.SignCheckpoint(context.Background(), w.Signers[registrytest.KernelAudit], registrytest.KernelID, size, root)
	if err != nil {
		return "", err
	}
	return note, tx.PutCheckpoint(note, size)
}

// copy is the database at another place, as a backup is.
func (w *sealed) copy(t *testing.T) *sealed {
	t.Helper()
	data, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	c := *w
	c.path = filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(c.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return &c
}

// administer runs f over the bare file, its triggers dropped.
func (w *sealed) administer(t *testing.T, f func(db *sql.DB)) {
	t.Helper()
	db, err := sql.Open("sqlite3", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var triggers string
	if err := db.QueryRow("SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type = 'trigger'").Scan(&triggers); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(triggers) {
		execSQL(t, db, "DROP TRIGGER "+name)
	}
	f(db)
}

func execSQL(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func leafAt(t *testing.T, db *sql.DB, seq int) (leaf []byte) {
	t.Helper()
	if err := db.QueryRow("SELECT leaf FROM events WHERE seq = ?", seq).Scan(&leaf); err != nil {
		t.Fatal(err)
	}
	return leaf
}

// verify judges the database as an auditor with a kept checkpoint does.
func (w *sealed) verify(t *testing.T, kept ...string) error {
	t.Helper()
	var verdict error
	w.with(t, func(s *storage.SQLite) {
		var claim history.Claim
		err := s.View(context.Background(), func(r workflow.Reader) (err error) {
			if claim.Registry, err = r.Registry(); err == nil {
				claim.Checkpoint, _, err = r.Checkpoint()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := auditlog.ReadCheckpoint(claim.Checkpoint)
		if err != nil {
			verdict = err
			return
		}
		_, verdict = history.Verify(context.Background(), history.Trust{Root: w.Root, Kept: kept}, claim, s.Leaves(context.Background(), c.Size))
	})
	return verdict
}

const anyRow = -1 // the class tells, no row

// What an administrator does to the rows by SQL is found, and the first bad
// row is named.
func TestTamperedRows(t *testing.T) {
	w := newSealed(t)
	kept := w.grow(t, 40, "true")
	if err := w.verify(t, kept); err != nil {
		t.Fatalf("untouched: %v", err)
	}
	other := newSealed(t)
	other.grow(t, 40, "another log")
	for name, c := range map[string]struct {
		change func(t *testing.T, db *sql.DB)
		row    int64
		class  failure.Class
	}{
		"an event is edited": {func(t *testing.T, db *sql.DB) {
			_, env, err := auditlog.ParseLeaf(leafAt(t, db, 7))
			if err != nil {
				t.Fatal(err)
			}
			env.Payload = bytes.Replace(env.Payload, []byte(`"actor":"ryan"`), []byte(`"actor":"tina"`), 1)
			execSQL(t, db, "UPDATE events SET leaf = ? WHERE seq = 7", env.Bytes())
		}, 7, failure.SignatureInvalid},
		"a byte is edited": {func(t *testing.T, db *sql.DB) {
			leaf := leafAt(t, db, 7)
			leaf[20] ^= 1
			execSQL(t, db, "UPDATE events SET leaf = ? WHERE seq = 7", leaf)
		}, 7, ""},
		"an event is emptied":  {run("UPDATE events SET leaf = x'' WHERE seq = 7"), 7, failure.EnvelopeMalformed},
		"the first is deleted": {run("DELETE FROM events WHERE seq = 0"), 0, failure.AuditChainBroken},
		"one is deleted":       {run("DELETE FROM events WHERE seq = 7"), 7, failure.AuditChainBroken},
		"the last is deleted":  {run("DELETE FROM events WHERE seq = 39"), 39, failure.AuditProofInvalid},
		"all are deleted":      {run("DELETE FROM events"), 0, failure.AuditProofInvalid},
		"deleted and renumbered": {run("DELETE FROM events WHERE seq = 7", "UPDATE events SET seq = -seq WHERE seq > 7",
			"UPDATE events SET seq = -seq - 1 WHERE seq < 0"), 7, failure.AuditChainBroken},
		"one is duplicated": {run("UPDATE events SET seq = -seq WHERE seq > 7", "UPDATE events SET seq = -seq + 1 WHERE seq < 0",
			"INSERT INTO events SELECT 8, hash, upgrade_id, leaf FROM events WHERE seq = 7"), 8, failure.AuditChainBroken},
		"two are reordered": {run("UPDATE events SET seq = -3 WHERE seq = 3", "UPDATE events SET seq = 3 WHERE seq = 4", "UPDATE events SET seq = 4 WHERE seq = -3"),
			3, failure.AuditChainBroken},
		"one of another log": {func(t *testing.T, db *sql.DB) {
			var leaf []byte
			other.copy(t).administer(t, func(db *sql.DB) { leaf = leafAt(t, db, 7) })
			execSQL(t, db, "UPDATE events SET leaf = ? WHERE seq = 7", leaf)
		}, 7, failure.AuditChainBroken},
		"the delegation is replaced by another's": {func(t *testing.T, db *sql.DB) {
			var leaf []byte
			other.copy(t).administer(t, func(db *sql.DB) { leaf = leafAt(t, db, 0) })
			execSQL(t, db, "UPDATE events SET leaf = ? WHERE seq = 0", leaf)
		}, 0, failure.AuditProofInvalid},
		"the checkpoint is edited":   {run("UPDATE checkpoints SET note = replace(note, char(10) || '40' || char(10), char(10) || '39' || char(10))"), anyRow, failure.AuditProofInvalid},
		"the checkpoint is unsigned": {run("UPDATE checkpoints SET note = substr(note, 1, instr(note, '—') - 1)"), anyRow, failure.AuditProofInvalid},
		"the registry is edited":     {run("UPDATE registry SET document = CAST(replace(CAST(document AS TEXT), 'Test ryan', 'Test evil') AS BLOB)"), anyRow, ""},
		"cut back to an older state": {run("DELETE FROM events WHERE seq >= 20", "DELETE FROM tree WHERE idx >= 38"), 20, failure.AuditProofInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			copied := w.copy(t)
			copied.administer(t, func(db *sql.DB) { c.change(t, db) })
			err := copied.verify(t, kept)
			row, named := history.BadRow(err)
			if err == nil || c.class != "" && failure.ClassOf(err) != c.class || named != (c.row != anyRow) || named && row != c.row {
				t.Errorf("class %q at row %d is wanted, not %v", c.class, c.row, err)
			}
		})
	}
}

func run(statements ...string) func(*testing.T, *sql.DB) {
	return func(t *testing.T, db *sql.DB) {
		for _, s := range statements {
			execSQL(t, db, s)
		}
	}
}

// Whole states that are consistent in themselves are found by who kept a
// checkpoint, and by nobody else: this is what the log guarantees, and its limit.
func TestTamperedStates(t *testing.T) {
	w := newSealed(t)
	w.grow(t, 20, "true")
	backup := w.copy(t)
	kept := w.grow(t, 40, "true")

	t.Run("restored backup", func(t *testing.T) {
		restored := backup.copy(t)
		wantClass(t, restored.verify(t), "")
		wantClass(t, restored.verify(t, kept), failure.AuditFork)
	})
	t.Run("truncated to an older checkpoint", func(t *testing.T) {
		cut := w.copy(t)
		cut.administer(t, func(db *sql.DB) {
			run("DELETE FROM events WHERE seq >= 20", "DELETE FROM tree WHERE idx >= 38", "DELETE FROM checkpoints WHERE size > 20")(t, db)
		})
		wantClass(t, cut.verify(t), "")
		wantClass(t, cut.verify(t, kept), failure.AuditFork)
	})
	t.Run("restored, and gone on past the kept size", func(t *testing.T) {
		fork := backup.copy(t)
		forked := fork.grow(t, 50, "other")
		wantClass(t, fork.verify(t), "")
		wantClass(t, fork.verify(t, kept), failure.AuditFork)
		wantClass(t, fork.verify(t, forked, kept), failure.AuditFork)
	})
	t.Run("rewritten with the event key under the old checkpoint", func(t *testing.T) {
		fork := backup.copy(t)
		fork.grow(t, 40, "other")
		fork.administer(t, func(db *sql.DB) { execSQL(t, db, "UPDATE checkpoints SET note = ? WHERE size = 40", kept) })
		wantClass(t, fork.verify(t), failure.AuditProofInvalid)
	})
	t.Run("an event that nobody signed is appended and sealed", func(t *testing.T) {
		forged := w.copy(t)
		forged.key = registrytest.Key(signer.Ed25519)
		forged.grow(t, 41, "forged")
		err := forged.verify(t, kept)
		if row, ok := history.BadRow(err); !ok || row != 40 || failure.ClassOf(err) != failure.AuditChainBroken {
			t.Errorf("row 40 is wanted, not %v", err)
		}
	})
}

// The stored tree is a copy of what follows from the leaves. Edited, it makes
// no proof, and the guard, which remembers the last tree, signs no other.
func TestTamperedTree(t *testing.T) {
	w := newSealed(t)
	kept := w.grow(t, 40, "true")
	last, err := auditlog.ReadCheckpoint(kept)
	if err != nil {
		t.Fatal(err)
	}
	w.administer(t, func(db *sql.DB) { execSQL(t, db, "UPDATE tree SET hash = zeroblob(32) WHERE idx IN (30, 62)") }) // over events 0 to 15, and 0 to 31
	wantClass(t, w.verify(t, kept), "")
	w.with(t, func(s *storage.SQLite) {
		err := s.View(context.Background(), func(r workflow.Reader) error {
			proof, err := r.InclusionProof(20, 40)
			if err != nil {
				return err
			}
			events, err := r.Events(20, 1)
			if err != nil {
				return err
			}
			_, _, err = auditlog.Entry{Index: 20, Leaf: events[0].Leaf, Proof: proof}.Verify(last)
			wantClass(t, err, failure.AuditProofInvalid)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	next, err := auditlog.ReadCheckpoint(w.grow(t, 41, "true"))
	if err != nil {
		t.Fatal(err)
	}
	w.with(t, func(s *storage.SQLite) {
		err := s.View(context.Background(), func(r workflow.Reader) error {
			proof, err := r.ConsistencyProof(40, 41)
			wantClass(t, auditlog.CheckConsistency(last, next, proof), failure.AuditFork)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func wantClass(t *testing.T, err error, class failure.Class) {
	t.Helper()
	if failure.ClassOf(err) != class || (err == nil) != (class == "") {
		t.Errorf("class %q is wanted, not %v", class, fmt.Sprint(err))
	}
}
