package main

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow"
)

// ledger is a real database with a sealed log. Its administrator has the file
// and the gateway's event key, and not the audit key.
type ledger struct {
	*registrytest.Fixture
	t    *testing.T
	file string
	key  signer.Signer
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	now := envelope.TimeOf(time.Now())
	l := &ledger{registrytest.New(now), t, filepath.Join(t.TempDir(), "log.db"), registrytest.Key(signer.Ed25519)}
	env, err := auditlog.SealDelegation(t.Context(), l.Signers[registrytest.KernelAudit], auditlog.Delegation{
		EventKeyID: envelope.KeyID(l.key.Public().KeyID()), Instance: "gateway-1", KernelID: registrytest.KernelID,
		NotBefore: now.Add(-60), NotAfter: now.Add(3600), PublicKey: l.key.Public().DER(),
	})
	must(t, err)
	l.update(func(tx workflow.Tx) error {
		_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.KeyDelegated, Actor: "kernel", Data: auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())}})
		return errors.Join(err, tx.AddRegistry(1, l.Entries[0]))
	})
	return l
}

func (l *ledger) open() *storage.SQLite {
	l.t.Helper()
	s, err := storage.OpenSQLite(l.t.Context(), l.file, time.Now)
	must(l.t, err)
	s.SetEventKey(registrytest.KernelID, l.key)
	return s
}

func (l *ledger) update(f func(workflow.Tx) error) {
	l.t.Helper()
	s := l.open()
	must(l.t, errors.Join(s.Update(l.t.Context(), f), s.Close()))
}

// grow appends events up to a size and has them sealed.
func (l *ledger) grow(size int64, word string) (note string) {
	l.t.Helper()
	l.update(func(tx workflow.Tx) error {
		have, err := tx.LogSize()
		for ; err == nil && have < size; have++ {
			_, err = tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, Actor: "ryan", Data: auditlog.Data{"n": have, "word": word}})
		}
		if err != nil {
			return err
		}
		root, err := tx.TreeRoot(size)
		if err != nil {
			return err
		}
		if note, err = auditlog.SignCheckpoint(l.t.Context(), l.Signers[registrytest.KernelAudit], registrytest.KernelID, size, root); err != nil {
			return err
		}
		return tx.PutCheckpoint(note, size)
	})
	return note
}

// backup is the ledger as it is now, at another place.
func (l *ledger) backup(t *testing.T) *ledger {
	t.Helper()
	data, err := os.ReadFile(l.file)
	must(t, err)
	b := *l
	b.t, b.file = t, filepath.Join(t.TempDir(), "copy.db")
	must(t, os.WriteFile(b.file, data, 0o600))
	return &b
}

// sql runs statements over the bare file, its triggers dropped.
func (l *ledger) sql(statements ...string) {
	l.t.Helper()
	db, err := sql.Open("sqlite3", l.file)
	must(l.t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	var triggers string
	must(l.t, db.QueryRow("SELECT group_concat('DROP TRIGGER ' || name, ';') FROM sqlite_schema WHERE type = 'trigger'").Scan(&triggers))
	for _, s := range append([]string{triggers}, statements...) {
		_, err := db.Exec(s)
		must(l.t, err)
	}
}

// serve is the ledger's real API.
func (l *ledger) serve() (url string) {
	l.t.Helper()
	store := l.open()
	artifacts, err := artifact.OpenDir(l.t.TempDir(), 1<<20)
	must(l.t, err)
	file := filepath.Join(l.t.TempDir(), "tokens")
	token, err := api.CreateToken(file, "auditor", "auditor")
	must(l.t, err)
	held := filepath.Join(l.t.TempDir(), "token")
	must(l.t, os.WriteFile(held, []byte(token+"\n"), 0o600))
	l.t.Setenv("KGCTL_TOKEN_FILE", held)
	tokens, err := api.OpenTokens(file)
	must(l.t, err)
	handler, err := api.New(api.Config{Engine: &api.Gateway{Store: store}, Artifacts: artifacts, Tokens: tokens, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	must(l.t, err)
	server := httptest.NewServer(handler)
	l.t.Cleanup(func() { server.Close(); must(l.t, errors.Join(store.Close(), artifacts.Close())) })
	return server.URL
}

// What an administrator does to the database by SQL, `kgctl audit verify` finds
// through the gateway that serves it, and names the first bad row.
func TestAuditVerifyFindsWhatSQLDid(t *testing.T) {
	l := newLedger(t)
	l.grow(20, "true")
	old := l.backup(t)
	note := l.grow(40, "true")
	kept := filepath.Join(t.TempDir(), "kept.txt")
	must(t, os.WriteFile(kept, []byte(note), 0o600))
	other := newLedger(t)
	other.grow(40, "another")
	attach := "ATTACH '" + other.file + "' AS other"
	makeRoom := []string{"UPDATE events SET seq = -seq WHERE seq > 7", "UPDATE events SET seq = -seq + 1 WHERE seq < 0"}
	cut := []string{"DELETE FROM events WHERE seq >= 20", "DELETE FROM tree WHERE idx >= 38", "DELETE FROM checkpoints WHERE size > 20"}
	const noRow = -1
	for name, c := range map[string]struct {
		do    func(t *testing.T) *ledger
		row   int64
		class failure.Class
	}{
		"untouched":         {l.after(), noRow, ""},
		"edited":            {l.after("UPDATE events SET leaf = CAST(replace(CAST(leaf AS TEXT), '\"sig\":\"', '\"sig\":\"AAAA') AS BLOB) WHERE seq = 7"), 7, failure.SignatureInvalid},
		"edited to nothing": {l.after("UPDATE events SET leaf = x'7b7d' WHERE seq = 7"), 7, failure.EnvelopeMalformed},
		"edited to another": {l.after(attach, "UPDATE events SET leaf = (SELECT leaf FROM other.events WHERE seq = 7) WHERE seq = 7"), 7, failure.AuditChainBroken},
		"deleted":           {l.after("DELETE FROM events WHERE seq = 7"), 7, failure.AuditChainBroken},
		"deleted, the last": {l.after("DELETE FROM events WHERE seq = 39"), 39, failure.AuditProofInvalid},
		"inserted":          {l.after(append(makeRoom, attach, "INSERT INTO events SELECT 8, hash, upgrade_id, leaf FROM other.events WHERE seq = 8")...), 8, failure.AuditChainBroken},
		"duplicated":        {l.after(append(makeRoom, "INSERT INTO events SELECT 8, hash, upgrade_id, leaf FROM events WHERE seq = 7")...), 8, failure.AuditChainBroken},
		"reordered":         {l.after("UPDATE events SET seq = -3 WHERE seq = 3", "UPDATE events SET seq = 3 WHERE seq = 4", "UPDATE events SET seq = 4 WHERE seq = -3"), 3, failure.AuditChainBroken},
		"truncated":         {l.after(cut...), noRow, failure.AuditFork},
		"restored":          {old.after(), noRow, failure.AuditFork},
		"forked": {func(t *testing.T) *ledger {
			fork := old.backup(t)
			fork.grow(50, "other")
			return fork
		}, noRow, failure.AuditFork},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			url := c.do(t).serve()
			code, out, messages := kgctl(t, "audit", "verify", "--server", url, "--root", l.Root.String(), "--checkpoint", kept, "-o", "json")
			var r history.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("exit %d: %v\n%s%s", code, err, out, messages)
			}
			row := int64(noRow)
			if r.Row != nil {
				row = *r.Row
			}
			if r.Valid != (c.class == "") || r.Class != c.class || row != c.row || (code == exitOK) != r.Valid || code != exitOK && code != exitVerification {
				t.Errorf("class %q at row %d is wanted, not exit %d and\n%s%s", c.class, c.row, code, out, messages)
			}
			if c.row != noRow && !bytes.Contains([]byte(r.Detail), []byte("event ")) || strings.Contains(r.Detail, "internal") {
				t.Errorf("people are told %q", r.Detail)
			}
		})
	}
}

// after is a copy after statements.
func (l *ledger) after(statements ...string) func(*testing.T) *ledger {
	return func(t *testing.T) *ledger {
		c := l.backup(t)
		c.sql(statements...)
		return c
	}
}
