package guard_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

// A gateway's store as the source: engine, store and guard as they are.
func TestRebuildFromAStore(t *testing.T) {
	people := registrytest.New(envelope.TimeOf(time.Now()))
	config := guard.Config{
		Root: people.Root, MemoryPath: filepath.Join(t.TempDir(), "memory"), Clock: time.Now,
		Records: people.Signers[registrytest.KernelRecords], Audit: people.Signers[registrytest.KernelAudit],
	}
	if err := guard.Init(config, people.Entries[0]); err != nil {
		t.Fatal(err)
	}
	g, err := guard.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	engine := workflow.New(workflow.Config{Store: store, Guard: g, Root: people.Root, Instance: "test",
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			store.SetEventKey(id, s)
			return nil
		}})
	if err := engine.Init(t.Context(), people.Entries[0]); err != nil {
		t.Fatal(err)
	}
	before, err := g.Status(t.Context())
	if err != nil || g.Close() != nil {
		t.Fatal(err)
	}
	config.MemoryPath, config.Rebuild = filepath.Join(t.TempDir(), "memory"), true
	standby, err := guard.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = standby.Close() }()
	if err := standby.Rebuild(t.Context(), guard.FromStore(store)); err != nil {
		t.Fatal(err)
	}
	after, err := standby.Status(t.Context())
	if err != nil || !after.Ready || after.CheckpointSize != before.CheckpointSize || after.RegistryDigest != before.RegistryDigest || after.Counts.Delegations != 1 {
		t.Fatalf("%+v %v", after, err)
	}
	if _, err := guard.FromStore(store).Record(t.Context(), people.Root); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatal(err)
	}
}
