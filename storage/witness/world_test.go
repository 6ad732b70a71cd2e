package witness_test

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

const kernelID = registrytest.KernelID

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// log is a log in a real database, sealed by a key in memory.
type log struct {
	*storage.SQLite
	audit signer.Signer
}

func newLog(t *testing.T, audit signer.Signer) *log {
	t.Helper()
	store, err := storage.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "log.db"), time.Now)
	check(t, err)
	t.Cleanup(func() { check(t, store.Close()) })
	store.SetEventKey(kernelID, registrytest.Key(signer.Ed25519))
	return &log{store, audit}
}

// grow appends events and seals them.
func (l *log) grow(t *testing.T, events int) {
	t.Helper()
	check(t, l.Update(context.Background(), func(tx workflow.Tx) error {
		for range events {
			if _, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, Actor: "ryan"}); err != nil {
				return err
			}
		}
		size, err := tx.LogSize()
		if err != nil {
			return err
		}
		root, err := tx.TreeRoot(size)
		if err != nil {
			return err
		}
		note, err := auditlog.SignCheckpoint(context.Background(), l.audit, kernelID, size, root)
		if err != nil {
			return err
		}
		return tx.PutCheckpoint(note, size)
	}))
}

func (l *log) checkpoint(t *testing.T) (note string) {
	t.Helper()
	check(t, l.View(t.Context(), func(r workflow.Reader) (err error) {
		note, _, err = r.Checkpoint()
		return err
	}))
	key := keyregistry.NewKey(l.audit.Public(), signer.Ed25519, keyregistry.OriginFile, envelope.Time{}, envelope.Time{})
	if _, err := auditlog.OpenCheckpoint(note, kernelID, []keyregistry.Key{key}); err != nil {
		t.Fatalf("the stored checkpoint does not open: %v", err)
	}
	return note
}

func vkey(audit signer.Signer) string {
	return auditlog.VerifierKey(kernelID, audit.Public().Key().(ed25519.PublicKey))
}

func policyOf(t *testing.T, text string) *auditlog.WitnessPolicy {
	t.Helper()
	policy, err := auditlog.ParseWitnessPolicy(text)
	check(t, err)
	return policy
}
