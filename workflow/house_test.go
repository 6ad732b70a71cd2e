package workflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// house is a gateway on the real SQLite store and the real guard behind its
// socket, each of which can be taken down; only clock, policy, canary and
// target are the tests'.
type house struct {
	t    testing.TB
	dir  string
	keys map[string]signer.Signer
	root envelope.Digest
	doc  keyregistry.Document // the newest
	reg  envelope.Digest      // its digest

	clock  *steps
	rules  *rules
	policy workflow.Policy // what the engine asks: rules, or what the registry pins
	pinned workflow.Policy // what the guard asks; nil where the registry pins none
	canary workflow.Canary
	depot  *depot

	artifacts *artifact.Dir
	store     *storage.SQLite
	guard     workflow.Guard // what the engine calls
	engine    *workflow.Engine
	stopRun   func()
	stopGuard func()
	n         int
}

// steps is real time, plus what tests add.
type steps struct {
	mu     sync.Mutex
	offset time.Duration
}

func (s *steps) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.offset)
}

func (s *steps) step(seconds int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += time.Duration(seconds) * time.Second
}

// rules is a policy that tests set.
type rules struct {
	mu      sync.Mutex
	verdict upgrade.PolicyVerdict
	broken  error // where the policy cannot be asked
	asked   []upgrade.PolicyInput
}

func (r *rules) Evaluate(_ context.Context, in upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, in)
	return r.verdict, r.broken
}

func (r *rules) breakDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
}

func (r *rules) set(v upgrade.PolicyVerdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = v
}
func (r *rules) Engine() string          { return "test" }
func (r *rules) Digest() envelope.Digest { return envelope.DigestOf([]byte("rules")) }

// depot is a target in memory, compare-and-swap, that counts.
type depot struct {
	mu      sync.Mutex
	live    map[envelope.ID]upgrade.Revision
	applied map[envelope.UUID]int
	history map[envelope.ID][]envelope.UUID
	fault   func(workflow.Change) error // before the change; nil goes on
	lost    func() bool                 // whether the answer is lost after the change
	away    error                       // what asking ends with; nil: it answers
}

func newDepot() *depot {
	return &depot{live: map[envelope.ID]upgrade.Revision{}, applied: map[envelope.UUID]int{}, history: map[envelope.ID][]envelope.UUID{}}
}

func (d *depot) Live(_ context.Context, target envelope.ID) (upgrade.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.live[target]; ok {
		return r, d.away
	}
	return upgrade.None, d.away
}

func (d *depot) Apply(ctx context.Context, c workflow.Change) error {
	r, err := c.Artifact(ctx)
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		if err := d.fault(c); err != nil {
			return err
		}
	}
	live, ok := d.live[c.Target.Name]
	if !ok {
		live = upgrade.None
	}
	switch live {
	case upgrade.RevisionOf(c.Patch):
		return nil
	case c.Base:
		d.live[c.Target.Name] = upgrade.RevisionOf(c.Patch)
		d.applied[c.UpgradeID]++
		d.history[c.Target.Name] = append(d.history[c.Target.Name], c.UpgradeID)
	default:
		return workflow.ErrBaseMoved
	}
	if d.lost != nil && d.lost() {
		return errors.New("the answer was lost")
	}
	return nil
}

// scale is a canary whose word tests set.
type scale struct {
	mu     sync.Mutex
	result workflow.CanaryResult
	seen   [][]byte // the baselines that Watch was given
}

func (s *scale) Baseline(context.Context, envelope.ID) ([]byte, error) {
	return []byte(`{"p99":10}`), nil
}

func (s *scale) Watch(_ context.Context, _ envelope.ID, baseline []byte) (workflow.CanaryResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, baseline)
	return s.result, nil
}

func (s *scale) set(r workflow.CanaryResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = r
}

const (
	window = 600  // the test registry's ratification window
	ttl    = 3600 // its approval TTL
)

// newHouse is a house whose registry pins a policy, where one is given.
func newHouse(t testing.TB, pinned ...workflow.Policy) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), keys: map[string]signer.Signer{}, clock: &steps{}, depot: newDepot(),
		rules: &rules{verdict: upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: upgrade.CanaryRollback}}}
	h.stopRun, h.stopGuard = func() {}, func() {}
	h.policy = h.rules
	h.doc = h.document()
	if len(pinned) > 0 {
		h.policy, h.pinned = pinned[0], pinned[0]
		digest := pinned[0].Digest()
		h.doc.Rules.PolicyDigest = &digest
	}
	var five []signer.Signer
	for _, p := range people {
		five = append(five, h.keys[p])
	}
	entry := registrytest.Entry(&h.doc, five...)
	h.root = envelope.DigestOf(entry.Document)
	h.reg = h.root
	if err := guard.Init(h.guardConfig(), entry); err != nil {
		t.Fatal(err)
	}
	h.artifacts = must2(t, func() (*artifact.Dir, error) { return artifact.OpenDir(filepath.Join(h.dir, "artifacts"), 1<<20) })
	h.openGuard()
	h.guard = guard.NewClient(h.socket())
	h.openStore()
	h.engine = h.newEngine()
	if err := h.engine.Init(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.stop()
		_ = h.store.Close()
		h.stopGuard()
	})
	return h
}

func must2[T any](t testing.TB, f func() (T, error)) T {
	t.Helper()
	v, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (h *house) now() envelope.Time { return envelope.TimeOf(h.clock.now()) }

func (h *house) key(name string) []keyregistry.Key {
	h.keys[name] = registrytest.Key(signer.Ed25519)
	return []keyregistry.Key{registrytest.KeyEntry(h.keys[name], h.now())}
}

func (h *house) document() keyregistry.Document {
	doc := keyregistry.Document{IssuedAt: h.now().Add(-60), KernelID: "k1", Rules: keyregistry.DefaultRules(), Test: true, Version: 1,
		Requestors: []keyregistry.Person{}, Retired: []keyregistry.RetiredKey{}}
	doc.Rules.ApprovalTTLSeconds, doc.Rules.RatificationWindowSeconds = ttl, window
	roles := []keyregistry.Role{"superadmin", "security-engineer", "technical-lead", "division-lead", "division-lead"}
	for i, p := range people {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(p), Name: p, Role: roles[i], Keys: h.key(p)})
	}
	doc.CI = []keyregistry.Person{{ID: "ci", Name: "ci", Keys: h.key("ci")}}
	doc.Kernel = keyregistry.KernelKeys{Records: h.key("records"), Audit: h.key("audit")}
	return doc
}

func (h *house) socket() string { return filepath.Join(h.dir, "guard.sock") }

func (h *house) guardConfig() guard.Config {
	return guard.Config{Root: h.root, MemoryPath: filepath.Join(h.dir, "memory"), Records: h.keys["records"], Audit: h.keys["audit"], Clock: h.clock.now, Policy: h.pinned}
}

// openGuard starts the guard's process, as far as its memory and its socket tell.
func (h *house) openGuard() {
	h.t.Helper()
	g := must2(h.t, func() (*guard.Guard, error) { return guard.Open(h.guardConfig()) })
	l, err := guard.Listen(h.socket())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- guard.Serve(ctx, g, l) }()
	h.stopGuard = func() {
		cancel()
		<-done
		_ = g.Close()
		h.stopGuard = func() {}
	}
}

func (h *house) openStore() {
	h.store = must2(h.t, func() (*storage.SQLite, error) {
		return storage.OpenSQLite(context.Background(), filepath.Join(h.dir, "db"), h.clock.now)
	})
}

func (h *house) newEngine() *workflow.Engine { return h.engineOn(h.store, "one") }

func (h *house) engineOn(store *storage.SQLite, instance string) *workflow.Engine {
	return workflow.New(workflow.Config{Store: store, Artifacts: h.artifacts, Guard: h.guard, Policy: h.policy, Deployer: h.depot, Canary: h.canary,
		Clock: h.clock.now, Root: h.root, Instance: instance, Logger: testLogger,
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			store.SetEventKey(id, s)
			return nil
		}})
}

// run starts the engine; stop ends it as a drain does.
func (h *house) run() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	engine := h.engine
	go func() { done <- engine.Run(ctx) }()
	h.stopRun = func() {
		cancel()
		<-done
		h.stopRun = func() {}
	}
}

func (h *house) stop() { h.stopRun() }

// restart is another process on the same database.
func (h *house) restart() {
	h.t.Helper()
	h.stop()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.openStore()
	h.engine = h.newEngine()
	h.run()
}

// proposal is an upgrade and what is needed to sign about it.
type proposal struct {
	upgrade.Manifest
	digest envelope.Digest
}

func (h *house) put(content string) envelope.Digest {
	h.t.Helper()
	digest, _, err := h.artifacts.Put(h.t.Context(), bytes.NewReader([]byte(content)))
	if err != nil {
		h.t.Fatal(err)
	}
	return digest
}

// draft is a manifest on top of an upgrade, nil for none.
func (h *house) draft(on *proposal) upgrade.Manifest {
	h.n++
	m := upgrade.Manifest{BaseRevision: upgrade.None, Impact: upgrade.Impact{Components: []string{"secret component"}, Downtime: "none"}, KernelID: "k1",
		KeyID: h.id("ann"), PatchHash: h.put(fmt.Sprint("content ", h.n)), Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "ann",
		Rationale: "free text", Target: upgrade.Target{Name: "web", ManifestID: "x"}, Timestamp: h.now(), Type: upgrade.TypeCode,
		UpgradeID: envelope.UUID(fmt.Sprintf("0b7f1d5e-0000-4000-8000-%012d", h.n))}
	if on != nil {
		m.BaseRevision = upgrade.RevisionOf(on.PatchHash)
	}
	return m
}

// undo is a rollback manifest of what is live.
func (h *house) undo(live *proposal) upgrade.Manifest {
	m := h.draft(live)
	m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "bad", UpgradeID: live.UpgradeID}
	m.PatchHash, _ = live.BaseRevision.Digest()
	return m
}

func (h *house) propose(m upgrade.Manifest) *proposal {
	h.t.Helper()
	env := h.seal("ann", envelope.TypeManifest, m)
	h.submit(workflow.KindManifest, env)
	if _, err := h.engine.RequestApprovals(h.t.Context(), m.UpgradeID, "ann"); err != nil {
		h.t.Fatal(err)
	}
	return &proposal{m, env.PayloadDigest()}
}

func (h *house) id(name string) envelope.KeyID { return envelope.KeyID(h.keys[name].Public().KeyID()) }

func (h *house) seal(name, payloadType string, v any) envelope.Envelope {
	h.t.Helper()
	return must2(h.t, func() (envelope.Envelope, error) {
		return envelope.Seal(context.Background(), h.keys[name], payloadType, v)
	})
}

func (h *house) submit(kind string, env envelope.Envelope) workflow.Result {
	h.t.Helper()
	return must2(h.t, func() (workflow.Result, error) { return h.engine.Submit(h.t.Context(), kind, env) })
}

func (h *house) approval(p *proposal, who string, preapproved bool) envelope.Envelope {
	return h.seal(who, envelope.TypeApproval, upgrade.Approval{ApprovalTs: h.now(), ApproverID: envelope.ID(who), KernelID: "k1", KeyID: h.id(who),
		ManifestDigest: p.digest, Notes: "free text", PatchHash: p.PatchHash, RegistryDigest: h.reg, RollbackPreapproved: preapproved, UpgradeID: p.UpgradeID})
}

func (h *house) approve(p *proposal, who ...string) {
	h.t.Helper()
	for _, name := range who {
		h.submit(workflow.KindApproval, h.approval(p, name, false))
	}
}

func (h *house) reject(p *proposal, who ...string) {
	h.t.Helper()
	for _, name := range who {
		h.submit(workflow.KindRejection, h.seal(name, envelope.TypeRejection, upgrade.Rejection{ApproverID: envelope.ID(name), KernelID: "k1", KeyID: h.id(name),
			ManifestDigest: p.digest, Reason: "free text", RegistryDigest: h.reg, RejectionTs: h.now(), UpgradeID: p.UpgradeID}))
	}
}

func (h *house) triggerBy(p *proposal, who string) envelope.Envelope {
	return h.seal(who, envelope.TypeEmergencyTrigger, upgrade.EmergencyTrigger{KernelID: "k1", KeyID: h.id(who), ManifestDigest: p.digest, PatchHash: p.PatchHash,
		Reason: "free text", RegistryDigest: h.reg, TriggeredAt: h.now(), TriggeredBy: envelope.ID(who), UpgradeID: p.UpgradeID})
}

func (h *house) view(id envelope.UUID) workflow.View {
	h.t.Helper()
	return must2(h.t, func() (workflow.View, error) { return h.engine.Upgrade(context.Background(), id) })
}

func (h *house) until(id envelope.UUID, want workflow.State) workflow.View {
	h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		v := h.view(id)
		if v.Upgrade.State == want {
			return v
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("upgrade %s is %s (%s), want %s", id, v.Upgrade.State, v.Upgrade.Reason, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// through proposes, approves and waits until it is complete.
func (h *house) through(m upgrade.Manifest) *proposal {
	h.t.Helper()
	p := h.propose(m)
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateCompleted)
	return p
}

func (h *house) count(id envelope.UUID, event string) int {
	h.t.Helper()
	n := 0
	for _, ev := range h.view(id).Events {
		if ev.Event.Type == event {
			n++
		}
	}
	return n
}

// rollbackOf is the Kernel's rollback of an upgrade, once it is raised.
func (h *house) rollbackOf(id envelope.UUID) envelope.UUID {
	h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		v := h.view(id)
		if v.Upgrade.RollbackID != "" {
			return v.Upgrade.RollbackID
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no rollback of %s was raised: %s (%s)", id, v.Upgrade.State, v.Upgrade.Reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// verify verifies an upgrade's bundle file as an outsider does.
func (h *house) verify(id envelope.UUID, want upgrade.Case) *upgrade.FileVerdict {
	h.t.Helper()
	file := must2(h.t, func() ([]byte, error) { return h.engine.Bundle(context.Background(), id) })
	v, err := upgrade.VerifyFile(file, h.root, true)
	if err != nil {
		h.t.Fatalf("the bundle file of %s: %v", id, err)
	}
	if v.Case != want {
		h.t.Fatalf("the bundle file of %s is of case %s, want %s", id, v.Case, want)
	}
	return v
}

var eventText = regexp.MustCompile(`^[A-Za-z0-9_.:/+=-]*$`)

// checkAll verifies every bundle file, and that the log holds no free text.
func (h *house) checkAll() {
	h.t.Helper()
	var list []workflow.Upgrade
	err := h.store.View(context.Background(), func(r workflow.Reader) (err error) {
		list, _, err = r.Upgrades(workflow.Page{Limit: 1000})
		if err != nil {
			return err
		}
		events, err := r.Events(0, 100000)
		for _, ev := range events {
			for name, v := range ev.Event.Data {
				words := []string{}
				switch v := v.(type) {
				case string:
					words = []string{v}
				case []string:
					words = v
				}
				for _, w := range words {
					if !eventText.MatchString(w) {
						h.t.Errorf("event %d (%s) has the text %q as %s", ev.Seq, ev.Event.Type, w, name)
					}
				}
			}
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ended := []workflow.State{workflow.StateApplied, workflow.StateValidating, workflow.StateCompleted, workflow.StateEmergencyApplied, workflow.StateRollbackScheduled, workflow.StateRolledBack}
	for _, u := range list {
		if slices.Contains(ended, u.State) {
			file := must2(h.t, func() ([]byte, error) { return h.engine.Bundle(context.Background(), u.ID) })
			if _, err := upgrade.VerifyFile(file, h.root, true); err != nil {
				h.t.Errorf("the bundle file of %s, %s: %v", u.ID, u.State, err)
			}
		}
	}
}

// testLogger is what the engine says; set it to slog.Default() to read along.
var testLogger = slog.New(slog.DiscardHandler)
