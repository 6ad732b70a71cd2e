package browser_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/policy"
)

// kernelID is the Kernel of these tests.
const kernelID envelope.ID = "browser-test"

// world is a whole gateway on loopback: its own database, guard and targets.
type world struct {
	dir       string
	origin    string
	signers   map[string]signer.Signer // requestor, ci and the Kernel
	keys      map[string]*securityKey  // the five approvers, who sign in a browser
	root      envelope.Digest
	doc       *keyregistry.Document // the one in force
	store     *storage.SQLite
	artifacts *artifact.Dir
	engine    *workflow.Engine
	watch     workflow.Canary  // nil: nothing watches the target
	oidc      *commandpad.OIDC // nil: passkeys only
	later     atomic.Int64     // seconds by which the clock of the pages is ahead
	closing   atomic.Bool      // the next change of an account comes after it was closed
	slow      atomic.Int64     // milliseconds by which scripts come later than the rest
}

// now is the clock of the pages and of their sessions.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.later.Load()) * time.Second) }

func newWorld(t *testing.T, edit ...func(*world)) *world {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	check(t, err)
	w := &world{dir: t.TempDir(), origin: "http://localhost:" + port, keys: map[string]*securityKey{}}
	for _, f := range edit {
		f(w)
	}
	entry := w.register(t)
	w.start(t, entry)
	w.serve(t, listener)
	return w
}

// register makes version 1, in which every approver has a browser's key.
func (w *world) register(t *testing.T) keyregistry.SignedDocument {
	now := envelope.TimeOf(time.Now())
	w.signers = map[string]signer.Signer{"ops": registrytest.Key(signer.ECDSAP256SHA256), "ci": registrytest.Key(signer.Ed25519),
		"records": registrytest.Key(signer.ECDSAP256SHA256), "audit": registrytest.Key(signer.Ed25519)}
	entry := func(name string) []keyregistry.Key {
		return []keyregistry.Key{registrytest.KeyEntry(w.signers[name], now)}
	}
	doc := &keyregistry.Document{
		IssuedAt: now, KernelID: kernelID, Rules: keyregistry.DefaultRules(), Version: 1, Test: true, Retired: []keyregistry.RetiredKey{},
		CI:         []keyregistry.Person{{ID: "ci", Name: "CI", Keys: entry("ci")}},
		Requestors: []keyregistry.Person{{ID: "ops", Name: "Operations", Keys: entry("ops")}},
		Kernel:     keyregistry.KernelKeys{Audit: entry("audit"), Records: entry("records")},
	}
	for _, p := range []struct {
		id   envelope.ID
		role keyregistry.Role
	}{{"divlead-1", keyregistry.DivisionLead}, {"divlead-2", keyregistry.DivisionLead}, {"ryan", keyregistry.SuperAdmin},
		{"sec-eng", keyregistry.SecurityEngineer}, {"tech-lead", keyregistry.TechnicalLead}} {
		key := newSecurityKey(t, w.origin)
		w.keys[string(p.id)] = key
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: p.id, Name: "Test " + string(p.id), Role: p.role, Keys: []keyregistry.Key{key.entry(now)}})
	}
	signed := registrytest.Entry(doc)
	for _, p := range doc.Approvers {
		signed.Statement.Signatures = append(signed.Statement.Signatures, w.keys[string(p.ID)].sign(t, signed.Statement))
	}
	w.root, w.doc = envelope.DigestOf(signed.Document), doc
	return signed
}

func (w *world) start(t *testing.T, entry keyregistry.SignedDocument) {
	config := guard.Config{Root: w.root, MemoryPath: filepath.Join(w.dir, "guard.json"), Records: w.signers["records"], Audit: w.signers["audit"], Clock: time.Now}
	check(t, guard.Init(config, entry))
	kernel, err := guard.Open(config)
	check(t, err)
	socket := filepath.Join(w.dir, "guard.sock")
	listener, err := guard.Listen(socket)
	check(t, err)
	w.store, err = storage.OpenSQLite(t.Context(), filepath.Join(w.dir, "kernelgate.db"), w.now)
	check(t, err)
	w.artifacts, err = artifact.OpenDir(filepath.Join(w.dir, "store"), 64<<20)
	check(t, err)
	release, err := deploy.OpenRelease(filepath.Join(w.dir, "web"), 3, deploy.DefaultLimits())
	check(t, err)
	rules, err := policy.LoadDir(w.policyDir(t))
	check(t, err)
	w.engine = workflow.New(workflow.Config{
		Store: w.store, Artifacts: w.artifacts, Guard: guard.NewClient(socket), Policy: rules, Root: w.root, Instance: "test", Canary: w.watch,
		Deployer: deploy.Set{"web": release}, Logger: slog.New(slog.DiscardHandler),
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			w.store.SetEventKey(id, s)
			return nil
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- guard.Serve(ctx, kernel, listener) }()
	check(t, w.engine.Init(ctx, entry))
	go func() { ended <- w.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		for range cap(ended) {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("on the way out: %v", err)
			}
		}
		check(t, w.store.Close())
	})
}

// policyDir is the delivered policy, with one rule: nothing touches "vault".
func (w *world) policyDir(t *testing.T) string {
	dir := filepath.Join(w.dir, "policy")
	check(t, os.CopyFS(dir, os.DirFS("../../workflow/policy/sentinelnet")))
	data := `{"sentinelnet": {"blocked": [{"name": "vault", "why": "Nothing may touch the vault; ask the security engineer.", "components": ["vault"]}], "budgets": [], "tests": [], "onCanaryFailure": {"default": "rollback", "targets": {}}}}`
	check(t, os.WriteFile(filepath.Join(dir, "data.json"), []byte(data), 0o600))
	return dir
}

func (w *world) serve(t *testing.T, listener net.Listener) {
	tokens := filepath.Join(w.dir, "tokens.json")
	_, err := api.CreateToken(tokens, "ops", "operator")
	check(t, err)
	file, err := api.OpenTokens(tokens)
	check(t, err)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	pad, err := commandpad.New(commandpad.Config{Engine: w.engine, Store: w.store, Artifacts: w.artifacts, Accounts: closing{w.store, w}, Origin: w.origin, OIDC: w.oidc, Targets: []envelope.ID{"web"},
		Checks: []commandpad.Check{{Name: "Guard", Run: w.engine.Guard.Probe}}, Clock: w.now, Logger: log})
	check(t, err)
	ok := func(context.Context) error { return nil }
	calls, err := api.New(api.Config{Engine: &api.Gateway{Workflow: w.engine, Store: w.store}, Artifacts: w.artifacts, Tokens: file, Sessions: pad.Identify, SigningRequests: w.store,
		Health: api.Health{Database: ok, Guard: ok, LogLag: func(context.Context) (int64, error) { return 0, nil }, MaxLogLag: 1000}, Logger: log, Metrics: prometheus.NewRegistry()})
	check(t, err)
	mux := http.NewServeMux()
	mux.Handle("/v1/", calls)
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".js") {
			time.Sleep(time.Duration(w.slow.Load()) * time.Millisecond)
		}
		pad.ServeHTTP(rw, r)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { check(t, server.Close()) })
}

// closing are accounts that an operator closes at the worst moment.
type closing struct {
	account.Store
	w *world
}

func (c closing) ChangeAccount(ctx context.Context, person envelope.ID, invitation string, f func(*account.Account, bool) error) error {
	if c.w.closing.Load() {
		if err := c.DropAccount(ctx, person); err != nil {
			return err
		}
	}
	return c.Store.ChangeAccount(ctx, person, invitation, f)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
