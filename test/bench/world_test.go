// Package bench measures the gateway as its clients meet it.
package bench

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// world is a gateway with its guard, its people and a client.
type world struct {
	b *testing.B
	*registrytest.Fixture
	store  *storage.SQLite
	engine *workflow.Engine
	client *client.Client
	patch  envelope.Digest
	depot  *depot
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// people is a registry, its Kernel's keys in memory, or in a SoftHSM2 token.
func people(b *testing.B, token bool) *registrytest.Fixture {
	b.Helper()
	at := envelope.TimeOf(time.Now()).Add(-60)
	f := registrytest.New(at)
	if !token {
		return f
	}
	b.Setenv("SOFTHSM2_CONF", "")
	kernel := must(must(softhsm.New(filepath.Join(b.TempDir(), "hsm"))).CreateToken("kernel"))
	for i, name := range []string{registrytest.KernelRecords, registrytest.KernelAudit} {
		algorithm := []signer.Algorithm{signer.ECDSAP256SHA256, signer.Ed25519}[i]
		key := must(kernel.GenerateKey("key", []byte{byte(i + 1)}, algorithm))
		s := must(pkcs11.Open(b.Context(), key.URI, pkcs11.Options{}))
		b.Cleanup(func() { _ = s.Close() })
		f.Signers[name] = s
	}
	doc := *f.Registry.Document()
	doc.Kernel = keyregistry.KernelKeys{
		Records: []keyregistry.Key{registrytest.KeyEntry(f.Signers[registrytest.KernelRecords], at)},
		Audit:   []keyregistry.Key{registrytest.KeyEntry(f.Signers[registrytest.KernelAudit], at)},
	}
	entry := registrytest.Entry(&doc, f.Approvers()...)
	f.Root, f.Entries = envelope.DigestOf(entry.Document), []keyregistry.SignedDocument{entry}
	return f
}

// newWorld starts a gateway on SQLite in a directory of its own, the Kernel's
// keys in memory or in a token.
func newWorld(b *testing.B, token bool) *world {
	b.Helper()
	dir := b.TempDir()
	w := &world{b: b, Fixture: people(b, token), depot: newDepot()}
	config := guard.Config{Root: w.Root, MemoryPath: filepath.Join(dir, "memory"), Records: w.Signers[registrytest.KernelRecords], Audit: w.Signers[registrytest.KernelAudit], Clock: time.Now}
	check(b, guard.Init(config, w.Entries[0]))
	kernel := must(guard.Open(config))
	socket := filepath.Join(dir, "guard.sock")
	l := must(guard.Listen(socket))
	w.store = must(storage.OpenSQLite(b.Context(), filepath.Join(dir, "db"), time.Now))
	artifacts := must(artifact.OpenDir(filepath.Join(dir, "artifacts"), 1<<20))
	w.patch, _, _ = artifacts.Put(b.Context(), bytes.NewReader([]byte("the change")))
	log := slog.New(slog.DiscardHandler)
	w.engine = workflow.New(workflow.Config{
		Store: w.store, Artifacts: artifacts, Guard: guard.NewClient(socket), Policy: must(policy.Default()), Deployer: w.depot, Root: w.Root, Instance: "bench", Logger: log,
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			w.store.SetEventKey(id, s)
			return nil
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	guarded, worked := make(chan struct{}), make(chan struct{})
	go func() { defer close(guarded); _ = guard.Serve(ctx, kernel, l) }()
	check(b, w.engine.Init(ctx, w.Entries[0]))
	running, halt := context.WithCancel(ctx)
	go func() { defer close(worked); _ = w.engine.Run(running) }()
	served := w.serve(ctx, dir, artifacts, log)
	b.Cleanup(func() {
		halt()
		<-worked
		stop()
		<-guarded
		<-served
		check(b, kernel.Close())
		check(b, w.store.Close())
	})
	return w
}

// serve starts the API and makes a client that keeps as many connections as
// there are clients.
func (w *world) serve(ctx context.Context, dir string, artifacts workflow.Artifacts, log *slog.Logger) <-chan struct{} {
	b := w.b
	tokens := filepath.Join(dir, "tokens.json")
	token := must(api.CreateToken(tokens, "ops", string(api.RoleOperator)))
	face := &api.Gateway{Workflow: w.engine, Store: w.store}
	fine := func(context.Context) error { return nil }
	handler := must(api.New(api.Config{Engine: face, Artifacts: artifacts, Tokens: must(api.OpenTokens(tokens)), Logger: log, Metrics: prometheus.NewRegistry(),
		Health: api.Health{Database: fine, Guard: fine, LogLag: func(context.Context) (int64, error) { return 0, nil }}}))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	served := make(chan struct{})
	go func() { defer close(served); _ = api.Serve(ctx, l, handler, time.Second) }()
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	b.Cleanup(transport.CloseIdleConnections)
	w.client = must(client.New("http://"+l.Addr().String(), token, &http.Client{Transport: transport}))
	return served
}

func uuid(n int) envelope.UUID { return envelope.UUID(fmt.Sprintf("0b7f1d5e-0000-4000-8000-%012d", n)) }

func (w *world) keyID(name string) envelope.KeyID {
	return envelope.KeyID(w.Signers[name].Public().KeyID())
}

func (w *world) seal(name, payloadType string, v any) envelope.Envelope {
	return must(envelope.Seal(context.Background(), w.Signers[name], payloadType, v))
}

// manifest is a first upgrade at a target of its own.
func (w *world) manifest(n int) envelope.Envelope {
	return w.seal("ops", envelope.TypeManifest, upgrade.Manifest{BaseRevision: upgrade.None, Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"},
		KernelID: registrytest.KernelID, KeyID: w.keyID("ops"), PatchHash: w.patch, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "ops",
		Rationale: "Upgrade " + fmt.Sprint(n), Target: upgrade.Target{Name: envelope.ID(fmt.Sprintf("site-%d", n)), ManifestID: "x"},
		Timestamp: envelope.TimeOf(time.Now()), Type: upgrade.TypeCode, UpgradeID: uuid(n)})
}

func (w *world) approval(n int, manifest envelope.Digest, who string) envelope.Envelope {
	return w.seal(who, envelope.TypeApproval, upgrade.Approval{ApprovalTs: envelope.TimeOf(time.Now()), ApproverID: envelope.ID(who), KernelID: registrytest.KernelID,
		KeyID: w.keyID(who), ManifestDigest: manifest, PatchHash: w.patch, RegistryDigest: w.Root, UpgradeID: uuid(n)})
}
