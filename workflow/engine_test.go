package workflow_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// kernel stands in for the guard: it signs what upgrade.VerifyBundle accepts
// and a checkpoint of its own proves. Methods that these tests do not reach panic.
type kernel struct {
	workflow.Guard
	w       *world
	mu      sync.Mutex
	down    bool
	refusal error
}

func (k *kernel) DelegateEventKey(ctx context.Context, der []byte, instance string, nb, na envelope.Time) (envelope.Envelope, error) {
	public, err := signer.ParsePublicKey(der)
	if err != nil {
		return envelope.Envelope{}, err
	}
	return auditlog.SealDelegation(ctx, k.w.keys["audit"], auditlog.Delegation{EventKeyID: envelope.KeyID(public.KeyID()), Instance: instance, KernelID: "k1", NotAfter: na, NotBefore: nb, PublicKey: der})
}

func (k *kernel) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, _ [][]byte) (string, error) {
	return auditlog.SignCheckpoint(ctx, k.w.keys["audit"], "k1", size, root)
}

func (k *kernel) SignRecord(ctx context.Context, b upgrade.QuorumBundle, p workflow.LogProof) (envelope.Envelope, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refusal != nil {
		return envelope.Envelope{}, k.refusal
	}
	if k.down {
		return envelope.Envelope{}, workflow.ErrGuardUnavailable
	}
	regs, err := keyregistry.AcceptChain(k.w.root, []keyregistry.SignedDocument{k.w.entry})
	if err != nil {
		return envelope.Envelope{}, err
	}
	v, err := upgrade.VerifyBundle(regs, &b)
	if err != nil {
		return envelope.Envelope{}, err
	}
	c, err := auditlog.OpenCheckpoint(p.Checkpoint, "k1", regs.Last().Document().Kernel.Audit)
	if err != nil {
		return envelope.Envelope{}, err
	}
	ev, _, err := p.Entry.Verify(c)
	if err != nil {
		return envelope.Envelope{}, err
	}
	if !upgrade.Announces(ev, auditlog.UpgradeApplying, v) {
		return envelope.Envelope{}, failure.New(failure.AuditProofInvalid, "another event")
	}
	return envelope.Seal(ctx, k.w.keys["records"], envelope.TypeInToto, v.Compose())
}
func (k *kernel) Status(context.Context) (workflow.GuardStatus, error) {
	return workflow.GuardStatus{Ready: true, RegistryVersion: 1, RegistryDigest: k.w.root}, nil
}
func (k *kernel) Outcome(context.Context, workflow.LogProof) error { return nil }

type allow struct{}

func (allow) Evaluate(context.Context, upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	return upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: upgrade.CanaryEscalate}, nil
}
func (allow) Engine() string          { return "test" }
func (allow) Digest() envelope.Digest { return envelope.DigestOf([]byte("policy")) }

type world struct {
	t         *testing.T
	keys      map[string]signer.Signer
	root      envelope.Digest
	entry     keyregistry.SignedDocument
	store     *memory
	guard     *kernel
	artifacts workflow.Artifacts
	release   *deploy.Release
	dir       string
	engine    *workflow.Engine
	patch     envelope.Digest
	id        envelope.UUID
	offset    int64
	mu        sync.Mutex
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(time.Duration(w.offset) * time.Second)
}
func (w *world) now() envelope.Time { return envelope.TimeOf(w.clock()) }

var people = []string{"ann", "bob", "cleo", "dan", "eve"}

func newWorld(t *testing.T) *world {
	w := &world{t: t, id: first, keys: map[string]signer.Signer{}, dir: t.TempDir()}
	now := w.now()
	key := func(name string) []keyregistry.Key {
		_, private, _ := ed25519.GenerateKey(rand.Reader)
		w.keys[name] = must[signer.Signer](t)(filekey.New(private, signer.Ed25519))
		return []keyregistry.Key{keyregistry.NewKey(w.keys[name].Public(), signer.Ed25519, keyregistry.OriginFile, now.Add(-9000), now.Add(1<<28))}
	}
	doc := keyregistry.Document{IssuedAt: now.Add(-60), KernelID: "k1", Rules: keyregistry.DefaultRules(), Test: true, Version: 1}
	doc.Rules.ApprovalTTLSeconds = 3600
	roles := []keyregistry.Role{"superadmin", "security-engineer", "technical-lead", "division-lead", "division-lead"}
	for i, p := range people {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(p), Name: p, Role: roles[i], Keys: key(p)})
	}
	doc.CI = []keyregistry.Person{{ID: "ci", Name: "ci", Keys: key("ci")}}
	doc.Kernel = keyregistry.KernelKeys{Records: key("records"), Audit: key("audit")}
	data := must[[]byte](t)(envelope.Canonical(doc))
	st := envelope.Envelope{PayloadType: envelope.TypeRegistryStatement}
	st.Payload = must[[]byte](t)(envelope.Canonical(keyregistry.NewStatement(&doc, data)))
	for _, p := range people {
		st.Signatures = append(st.Signatures, must[envelope.Signature](t)(envelope.Sign(t.Context(), w.keys[p], st)))
	}
	w.root, w.entry = envelope.DigestOf(data), keyregistry.SignedDocument{Document: data, Statement: st}
	w.store, w.guard = newMemory(w.now), &kernel{w: w}
	w.artifacts = must[*artifact.Dir](t)(artifact.OpenDir(filepath.Join(w.dir, "artifacts"), 1<<20))
	w.release = must[*deploy.Release](t)(deploy.OpenRelease(filepath.Join(w.dir, "web"), 2, deploy.DefaultLimits()))
	w.engine = w.newEngine()
	if err := w.engine.Init(t.Context(), w.entry); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	_ = tw.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: 5})
	_, _ = tw.Write([]byte("hello"))
	_ = tw.Close()
	var err error
	if w.patch, _, err = w.artifacts.Put(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) newEngine() *workflow.Engine {
	return workflow.New(workflow.Config{Store: w.store, Artifacts: w.artifacts, Guard: w.guard, Policy: allow{},
		Deployer: deploy.Set{"web": w.release}, Clock: w.clock, Root: w.root, Instance: "test", SetEventKey: w.store.setKey})
}

const first envelope.UUID = "0b7f1d5e-0000-4000-8000-000000000001"

func (w *world) propose() envelope.Digest { return w.proposeOn(upgrade.None, nil) }

func (w *world) proposeOn(base upgrade.Revision, rollback *upgrade.Rollback) envelope.Digest {
	w.t.Helper()
	kind := upgrade.TypeCode
	if rollback != nil {
		kind = upgrade.TypeRollback
	}
	env := w.seal("ann", envelope.TypeManifest, upgrade.Manifest{BaseRevision: base, Rollback: rollback, Impact: upgrade.Impact{Components: []string{"c"}, Downtime: "none"}, KernelID: "k1",
		KeyID: w.keyID("ann"), PatchHash: w.patch, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "ann", Rationale: "r",
		Target: upgrade.Target{Name: "web", ManifestID: "x"}, Timestamp: w.now(), Type: kind, UpgradeID: w.id})
	res := must[workflow.Result](w.t)(w.engine.Submit(w.t.Context(), workflow.KindManifest, env))
	must[workflow.State](w.t)(w.engine.RequestApprovals(w.t.Context(), w.id, "ann"))
	return res.Digest
}

func (w *world) keyID(p string) envelope.KeyID { return envelope.KeyID(w.keys[p].Public().KeyID()) }
func (w *world) seal(p, kind string, v any) envelope.Envelope {
	w.t.Helper()
	return must[envelope.Envelope](w.t)(envelope.Seal(w.t.Context(), w.keys[p], kind, v))
}

func (w *world) approval(p string, m envelope.Digest) envelope.Envelope {
	return w.seal(p, envelope.TypeApproval, upgrade.Approval{ApprovalTs: w.now(), ApproverID: envelope.ID(p), KernelID: "k1", KeyID: w.keyID(p), ManifestDigest: m, PatchHash: w.patch, RegistryDigest: w.root, UpgradeID: w.id})
}

func (w *world) approve(m envelope.Digest, who ...string) {
	w.t.Helper()
	for _, p := range who {
		must[workflow.Result](w.t)(w.engine.Submit(w.t.Context(), workflow.KindApproval, w.approval(p, m)))
	}
}

func (w *world) view() workflow.View {
	w.t.Helper()
	return must[workflow.View](w.t)(w.engine.Upgrade(w.t.Context(), w.id))
}

// run runs the engine until the upgrade is in the state.
func (w *world) run(want workflow.State) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.engine.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Second)
	for w.view().Upgrade.State != want && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	<-done
	if u := w.view().Upgrade; u.State != want {
		w.t.Fatalf("state %s (%s), want %s", u.State, u.Reason, want)
	}
}

func (w *world) has(event string) int {
	n := 0
	for _, e := range w.view().Events {
		if e.Event.Type == event {
			n++
		}
	}
	return n
}

func TestUpgradeIsAppliedAndItsBundleVerifies(t *testing.T) {
	w := newWorld(t)
	w.approve(w.propose(), "bob", "cleo", "dan")
	w.run(workflow.StateCompleted)
	if data, err := os.ReadFile(filepath.Join(w.dir, "web", "current", "index.html")); err != nil || string(data) != "hello" {
		t.Fatalf("deployed %q, %v", data, err)
	}
	file := must[[]byte](t)(w.engine.Bundle(t.Context(), w.id))
	v := must[*upgrade.FileVerdict](t)(upgrade.VerifyFile(file, w.root, true))
	if !slices.Equal(v.Approvers, []envelope.ID{"bob", "cleo", "dan"}) {
		t.Fatalf("approvers %v", v.Approvers)
	}
}

func TestDuplicateCountsOnceAndForgeryIsLogged(t *testing.T) {
	w := newWorld(t)
	m := w.propose()
	w.approve(m, "bob", "cleo")
	again := w.approval("cleo", m)
	forged := w.approval("dan", m)
	forged.Signatures[0].Sig = slices.Clone(again.Signatures[0].Sig)
	_, err := w.engine.Submit(t.Context(), workflow.KindApproval, forged)
	if failure.ClassOf(err) != failure.SignatureInvalid {
		t.Fatalf("forged approval: %v", err)
	}
	must[workflow.Result](t)(w.engine.Submit(t.Context(), workflow.KindApproval, again))
	if v := w.view(); v.Quorum || v.Upgrade.State != workflow.StatePendingApproval || w.has(auditlog.ApprovalInvalid) != 1 {
		t.Fatalf("quorum %v, state %s, %d invalid", v.Quorum, v.Upgrade.State, w.has(auditlog.ApprovalInvalid))
	}
}

func TestThreeRejectionsReject(t *testing.T) {
	w := newWorld(t)
	m := w.propose()
	for _, p := range []string{"bob", "cleo", "dan"} {
		must[workflow.Result](t)(w.engine.Submit(t.Context(), workflow.KindRejection, w.seal(p, envelope.TypeRejection, upgrade.Rejection{ApproverID: envelope.ID(p), KernelID: "k1",
			KeyID: w.keyID(p), ManifestDigest: m, Reason: "no", RegistryDigest: w.root, RejectionTs: w.now(), UpgradeID: w.id})))
	}
	if s := w.view().Upgrade.State; s != workflow.StateRejected {
		t.Fatal(s)
	}
}

func TestStaleApprovalIsLoggedAndTheUpgradeExpires(t *testing.T) {
	w := newWorld(t)
	w.approve(w.propose(), "bob")
	w.mu.Lock()
	w.offset = 3700
	w.mu.Unlock()
	w.run(workflow.StateExpired)
	if w.has(auditlog.ApprovalStale) != 1 {
		t.Fatal("no approval.stale")
	}
}

func TestRestartInTheMiddleGoesOn(t *testing.T) {
	w := newWorld(t)
	w.guard.down = true
	w.approve(w.propose(), "bob", "cleo", "dan")
	w.run(workflow.StateApplying)
	w.guard.mu.Lock()
	w.guard.down = false
	w.guard.mu.Unlock()
	w.engine = w.newEngine()
	w.run(workflow.StateCompleted)
	if n := w.has(auditlog.UpgradeApplying); n != 1 {
		t.Fatalf("%d upgrade.applying events", n)
	}
}

func TestEveryMoveOutsideTheTableIsRefused(t *testing.T) {
	for _, end := range []workflow.State{workflow.StateRejected, workflow.StateExpired, workflow.StateRolledBack, workflow.StateApplyFailed} {
		for _, m := range []workflow.Move{workflow.MoveReady, workflow.MoveApply, workflow.MoveApplied, workflow.MoveEmergency, workflow.MoveRolledBack} {
			if to, err := workflow.Next(end, m); !errors.Is(err, workflow.ErrConflict) || to != end {
				t.Errorf("%s by %s: %s, %v", end, m, to, err)
			}
		}
	}
}

func TestGuardRefusalRejects(t *testing.T) {
	w := newWorld(t)
	w.guard.refusal = failure.New(failure.AlreadySigned, "another bundle")
	w.approve(w.propose(), "bob", "cleo", "dan")
	w.run(workflow.StateRejected)
	if w.has(auditlog.GuardDenied) != 1 {
		t.Fatal("no guard.denied")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "web", "current")); !os.IsNotExist(err) {
		t.Fatalf("something was deployed: %v", err)
	}
}

func TestRollbackTakesTheLiveUpgradeBack(t *testing.T) {
	w := newWorld(t)
	w.approve(w.propose(), "bob", "cleo", "dan")
	w.run(workflow.StateCompleted)
	old := w.patch
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	_ = tw.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: 3})
	_, _ = tw.Write([]byte("bad"))
	_ = tw.Close()
	w.patch, _, _ = w.artifacts.Put(t.Context(), &buf)
	second := envelope.UUID("0b7f1d5e-0000-4000-8000-000000000002")
	w.id = second
	w.approve(w.proposeOn(upgrade.RevisionOf(old), nil), "bob", "cleo", "dan")
	w.run(workflow.StateCompleted)
	bad := w.patch
	w.id, w.patch = "0b7f1d5e-0000-4000-8000-000000000003", old
	w.approve(w.proposeOn(upgrade.RevisionOf(bad), &upgrade.Rollback{Reason: "bad", UpgradeID: second}), "ann", "cleo", "eve")
	w.run(workflow.StateCompleted)
	if data, err := os.ReadFile(filepath.Join(w.dir, "web", "current", "index.html")); err != nil || string(data) != "hello" {
		t.Fatalf("live %q, %v", data, err)
	}
	w.id = second
	if s := w.view().Upgrade.State; s != workflow.StateRolledBack || w.has(auditlog.UpgradeRollback) != 1 {
		t.Fatal(s)
	}
}
