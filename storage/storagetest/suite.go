package storagetest

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// Store is all that the stores are to the gateway.
type Store interface {
	workflow.Store
	account.Store
	SetEventKey(kernelID envelope.ID, key signer.Signer)
	Leaves(ctx context.Context, end int64) iter.Seq2[[]byte, error]
	Close() error
}

// Open opens a store; each call another one, on the same database.
type Open func(now func() time.Time) (Store, error)

// at opens a store with an event key of its own, until the test ends.
func (open Open) at(t *testing.T, now func() time.Time) Store {
	t.Helper()
	s, err := open(now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return s
}

func (open Open) with(t *testing.T) Store {
	t.Helper()
	return open.at(t, time.Now)
}

// Run runs the suite. database gives an empty database for each test; many
// says that several stores may have one open at the same time.
func Run(t *testing.T, many bool, database func(t *testing.T) Open) {
	tests := []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"group commit", groupCommit}, {"passed over", passedOver}, {"reopening", reopening}, {"undone", undone}, {"left", left}, {"snapshot", snapshot}, {"time", timeStands},
		{"rows", rows}, {"record once", recordOnce}, {"any bytes", anyBytes}, {"claims", claims}, {"spending, patches, emergencies", spendingPatchesAndEmergencies},
		{"search", search}, {"newest record, records of a person", newestRecordAndRecordsOfAPerson},
		{"registry and suspensions", registryAndSuspensions}, {"checkpoints", checkpoints}, {"leaves", leaves}, {"cursors", cursors},
		{"accounts and secrets", accountsAndSecrets},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) { c.run(t, database(t)) })
	}
	if many {
		t.Run("two stores, one chain", func(t *testing.T) { twoStores(t, database(t)) })
		t.Run("two stores, one session", func(t *testing.T) { oneSession(t, database(t)) })
		t.Run("two stores, one row", func(t *testing.T) { oneRow(t, database(t)) })
		t.Run("two stores, one claim", func(t *testing.T) { oneClaim(t, database(t)) })
	}
}

const id envelope.UUID = "0b7f1d5e-3c1a-4c57-9d0e-000000000001"

func appendEvent(tx workflow.Tx) error {
	_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, UpgradeID: id, Actor: "ryan", Data: auditlog.Data{"n": int64(1)}})
	return err
}

func record(text string) workflow.Record {
	return workflow.Record{Digest: envelope.DigestOf([]byte(text)), UpgradeID: id, Kind: "approval", Person: "ryan", Body: []byte(text)}
}

func update(t *testing.T, s Store, f func(workflow.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s Store, f func(workflow.Reader) error) {
	t.Helper()
	if err := s.View(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// Fill puts a row into every table: what a copy or a trigger is tried on.
func Fill(ctx context.Context, s Store) error {
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	fixture := registrytest.New(now)
	err := s.Update(ctx, func(tx workflow.Tx) error {
		row := workflow.Upgrade{ID: id, Target: "web", Type: "code", State: workflow.StateApplying, ProposedBy: "ops", CreatedAt: now, UpdatedAt: now, ExpiresAt: now, NextAt: &now, Intent: "Öffnen"}
		if err := tx.PutUpgrade(row); err != nil {
			return err
		}
		if _, err := tx.Claim(now, now.Add(60), "one", 1); err != nil {
			return err
		}
		if _, err := tx.AddRecord(record("a")); err != nil {
			return err
		}
		if err := tx.AddRegistry(1, fixture.Entries[0]); err != nil {
			return err
		}
		env := envelope.Envelope{Payload: []byte("{}"), PayloadType: "x", Signatures: []envelope.Signature{{KeyID: envelope.KeyID(strings.Repeat("0", 64)), Sig: []byte{1}}}}
		if err := tx.AddSuspension(env, envelope.Digest{}); err != nil {
			return err
		}
		if err := tx.PutTarget(workflow.Target{Name: "web", Live: "none"}); err != nil {
			return err
		}
		if err := tx.AddSpent("web", "2026-05", cost("EUR", 5)); err != nil {
			return err
		}
		for _, note := range []string{"note\n\n", "note\n\n— w.example/1 AAAAAAAA\n"} {
			if err := tx.PutCheckpoint(note, 1); err != nil {
				return err
			}
		}
		if err := tx.PutCursor("bus", 1); err != nil {
			return err
		}
		return appendEvent(tx)
	})
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	if err := s.ChangeAccount(ctx, "ryan", "", as("auditor")); err != nil {
		return err
	}
	return s.PutSecret(ctx, account.Session, account.Hash("secret"), "ryan", []byte{0, 1, 255}, time.Now().Add(time.Hour))
}

// Tables are all tables, with a column that is not of the key; of those that
// are append-only the second list.
func Tables() (changing, appendOnly map[string]string) {
	return map[string]string{"upgrades": "state", "targets": "live", "spending": "minor_units", "cursors": "next", "accounts": "role", "secrets": "kind"},
		map[string]string{"records": "kind", "registry": "document", "suspensions": "registry_digest", "events": "hash", "tree": "hash", "checkpoints": "note", "cosigned": "line"}
}
