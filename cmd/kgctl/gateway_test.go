package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/policy"
)

// gateway is a real one in the test's process: SQLite, a guard behind its
// socket with the Kernel's keys in SoftHSM2 tokens, a deployer, and the API.
type gateway struct {
	url    string
	dir    string
	root   envelope.Digest
	engine *workflow.Engine
}

// must ends the test; the transcripts' set-up has no other use for errors.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startGateway is undone by stop. t is the parent of all transcripts.
func startGateway(t testing.TB, dir string, entry keyregistry.SignedDocument, records, audit signer.Signer) (*gateway, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{dir: dir, root: envelope.DigestOf(entry.Document)}
	must(t, os.MkdirAll(dir, 0o700))
	document, err := envelope.Canonical(entry)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "registry.json"), document, 0o644))
	config := guard.Config{Root: g.root, MemoryPath: filepath.Join(dir, "guard.json"), Records: records, Audit: audit, Clock: time.Now}
	must(t, guard.Init(config, entry))
	kernel, err := guard.Open(config)
	must(t, err)
	socket := filepath.Join(dir, "guard.sock")
	listener, err := guard.Listen(socket)
	must(t, err)
	ended := make(chan error, 2)
	go func() { ended <- guard.Serve(ctx, kernel, listener) }()
	store, err := storage.OpenSQLite(ctx, filepath.Join(dir, "kernelgate.db"), time.Now)
	must(t, err)
	artifacts, err := artifact.OpenDir(filepath.Join(dir, "store"), 64<<20)
	must(t, err)
	release, err := deploy.OpenRelease(filepath.Join(dir, "web"), 3, deploy.DefaultLimits())
	must(t, err)
	rules := blockingPayroll(t, filepath.Join(dir, "policy"))
	guardClient := guard.NewClient(socket)
	g.engine = workflow.New(workflow.Config{
		Store: store, Artifacts: artifacts, Guard: guardClient, Policy: rules, Root: g.root, Instance: "test",
		Deployer: deploy.Set{"web": release}, Logger: slog.New(slog.DiscardHandler),
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			store.SetEventKey(id, s)
			return nil
		},
	})
	must(t, g.engine.Init(ctx, entry))
	go func() { ended <- g.engine.Run(ctx) }()
	server := g.serve(t, store, artifacts, guardClient)
	return g, func() {
		server.CloseClientConnections()
		server.Close()
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		must(t, errors.Join(store.Close(), artifacts.Close()))
	}
}

func (g *gateway) serve(t testing.TB, store *storage.SQLite, artifacts *artifact.Dir, guardClient workflow.Guard) *httptest.Server {
	t.Helper()
	for _, role := range []string{"operator", "auditor", "ci"} {
		token, err := api.CreateToken(g.tokens(), role, role)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(g.dir, role+".token"), []byte(token+"\n"), 0o600))
	}
	tokens, err := api.OpenTokens(g.tokens())
	must(t, err)
	handler, err := api.New(api.Config{
		Engine: &api.Gateway{Workflow: g.engine, Store: store}, Artifacts: artifacts, Tokens: tokens, SigningRequests: store,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Health: api.Health{
			MaxLogLag: 1000,
			Database:  func(ctx context.Context) error { return store.View(ctx, func(workflow.Reader) error { return nil }) },
			Guard:     guardClient.Probe,
			LogLag:    func(context.Context) (int64, error) { return 0, nil },
		},
	})
	must(t, err)
	server := httptest.NewServer(handler)
	g.url = server.URL
	return server
}

func (g *gateway) tokens() string { return filepath.Join(g.dir, "tokens.json") }

// blockingPayroll is the default policy, set to deny changes of payroll.
func blockingPayroll(t testing.TB, dir string) *policy.Embedded {
	t.Helper()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "workflow", "policy", "sentinelnet"))))
	must(t, os.WriteFile(filepath.Join(dir, "data.json"), []byte(`{"sentinelnet": {"blocked": [{"name": "payroll", "components": ["payroll"],
		"why": "Payroll is frozen until the audit is over; ask finance to lift it"}], "budgets": [], "onCanaryFailure": {"default": "rollback", "targets": {}}, "tests": []}}`), 0o644))
	rules, err := policy.LoadDir(dir)
	must(t, err)
	return rules
}
