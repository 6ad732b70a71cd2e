package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

type world struct {
	t      *testing.T
	keys   map[string]signer.Signer
	entry  keyregistry.SignedDocument
	config Config
	now    envelope.Time
	guard  *Guard
}

var people = []string{"a1", "a2", "a3", "a4", "a5"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey(audit bool) signer.Signer {
	if audit {
		_, k, _ := ed25519.GenerateKey(rand.Reader)
		return must(filekey.New(k, ""))
	}
	return must(filekey.New(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), ""))
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, keys: map[string]signer.Signer{}, now: must(envelope.ParseTime("2026-06-01T12:00:00Z"))}
	entry := func(name string) keyregistry.Key {
		s := newKey(name == "audit")
		w.keys[name] = s
		return keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginFile, w.now.Add(-1000), w.now.Add(9000000))
	}
	doc := keyregistry.Document{IssuedAt: w.now, KernelID: "k1", Rules: keyregistry.DefaultRules(), Test: true, Version: 1}
	roles := []keyregistry.Role{"superadmin", "security-engineer", "technical-lead", "division-lead", "division-lead"}
	for i, id := range people {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(id), Name: id, Role: roles[i], Keys: []keyregistry.Key{entry(id)}})
	}
	doc.Kernel.Records, doc.Kernel.Audit = []keyregistry.Key{entry("records")}, []keyregistry.Key{entry("audit")}
	data := must(envelope.Canonical(doc))
	statement := must(envelope.Canonical(keyregistry.NewStatement(&doc, data)))
	env := envelope.Envelope{Payload: statement, PayloadType: envelope.TypeRegistryStatement}
	for _, id := range people {
		env.Signatures = append(env.Signatures, must(envelope.Sign(t.Context(), w.keys[id], env)))
	}
	w.entry = keyregistry.SignedDocument{Document: data, Statement: env}
	w.config = Config{Root: envelope.DigestOf(data), MemoryPath: filepath.Join(t.TempDir(), "memory"), Records: w.keys["records"], Audit: w.keys["audit"], Clock: func() time.Time { return w.now.Std() }}
	if err := Init(w.config, w.entry); err != nil {
		t.Fatal(err)
	}
	w.open()
	return w
}

func (w *world) open() {
	w.guard = must(Open(w.config))
	g := w.guard
	w.t.Cleanup(func() { _ = g.Close() })
}

func (w *world) id(name string) envelope.KeyID { return envelope.KeyID(w.keys[name].Public().KeyID()) }

func (w *world) bundle(n int, base upgrade.Revision, rationale string) upgrade.QuorumBundle {
	uuid := envelope.UUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
	m := upgrade.Manifest{
		BaseRevision: base, Impact: upgrade.Impact{Components: []string{"c"}, Downtime: "none"}, KernelID: "k1", KeyID: w.id("a1"),
		PatchHash: envelope.DigestOf([]byte(uuid)), Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "a1",
		Rationale: rationale, Target: upgrade.Target{Name: "prod", ManifestID: "m"}, Timestamp: w.now, Type: upgrade.TypeCode, UpgradeID: uuid,
	}
	env := must(envelope.Seal(w.t.Context(), w.keys["a1"], envelope.TypeManifest, m))
	b := upgrade.QuorumBundle{
		Manifest: env, TestResults: []envelope.Envelope{}, Approvals: []envelope.Envelope{},
		Quorum: upgrade.QuorumInfo{Approvers: []envelope.ID{}, DecidedAt: w.now, KernelID: "k1", ManifestDigest: env.PayloadDigest(), RegistryDigest: w.config.Root, UpgradeID: uuid},
		PolicyDecision: &upgrade.PolicyDecision{Allow: true, Engine: "e", EvaluatedAt: w.now, KernelID: "k1", ManifestDigest: env.PayloadDigest(),
			OnCanaryFailure: upgrade.CanaryRollback, UpgradeID: uuid, Violations: []upgrade.Violation{}},
	}
	for _, p := range people[:3] {
		a := upgrade.Approval{ApprovalTs: w.now, ApproverID: envelope.ID(p), KernelID: "k1", KeyID: w.id(p), ManifestDigest: env.PayloadDigest(), PatchHash: m.PatchHash, RegistryDigest: w.config.Root, UpgradeID: uuid}
		b.Approvals = append(b.Approvals, must(envelope.Seal(w.t.Context(), w.keys[p], envelope.TypeApproval, a)))
		b.Quorum.Approvers = append(b.Quorum.Approvers, a.ApproverID)
	}
	return b
}

// prove seals one event as a log of its own; the guard's memory of the log is
// set back first, so that each event may stand alone.
func (w *world) prove(eventType string, b upgrade.QuorumBundle) workflow.LogProof {
	e := auditlog.Event{Actor: "kernel", KernelID: "k1", Time: w.now, Type: eventType, UpgradeID: b.Quorum.UpgradeID, Data: auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()}}
	leaf := must(auditlog.SealEvent(w.t.Context(), newKey(true), e)).Bytes()
	w.guard.mem.Size = 0
	note := must(w.guard.SignCheckpoint(w.t.Context(), 1, auditlog.LeafHash(leaf), nil))
	return workflow.LogProof{Checkpoint: note, Entry: auditlog.Entry{Leaf: leaf, Proof: [][]byte{}}}
}

func (w *world) refused(want failure.Class, err error) {
	w.t.Helper()
	if failure.ClassOf(err) != want {
		w.t.Fatalf("got %v, want class %q", err, want)
	}
}

func (w *world) sign(b upgrade.QuorumBundle) (envelope.Envelope, error) {
	return w.guard.SignRecord(w.t.Context(), b, w.prove(auditlog.UpgradeApplying, b))
}

func TestRecordOnceAndAgain(t *testing.T) {
	w := newWorld(t)
	b := w.bundle(1, upgrade.None, "first")
	first := must(w.sign(b))
	w.refused(failure.AlreadySigned, second(w.sign(w.bundle(1, upgrade.None, "other"))))
	w.refused(failure.BaseRevisionMoved, second(w.sign(w.bundle(2, upgrade.None, "late"))))
	_ = w.guard.Close()
	w.open()
	w.now = w.now.Add(100000)
	again := must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{}))
	if string(again.Bytes()) != string(first.Bytes()) {
		t.Fatal("the same bundle got another envelope")
	}
	must(w.sign(w.bundle(3, upgrade.RevisionOf(envelope.DigestOf([]byte(b.Quorum.UpgradeID))), "next")))
}

func second[T any](_ T, err error) error { return err }

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	b := w.bundle(1, upgrade.None, "r")
	proof := w.prove(auditlog.UpgradeApplying, b)
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRecord(t.Context(), b, w.prove(auditlog.UpgradeApplied, b))))
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRecord(t.Context(), b, workflow.LogProof{Checkpoint: "no"})))
	w.refused(failure.AuditFork, second(w.guard.SignRecord(t.Context(), b, proof)))
	w.refused(failure.AuditFork, second(w.guard.SignCheckpoint(t.Context(), 1, tlog.Hash{1}, nil)))
	short := b
	short.Approvals = b.Approvals[:2]
	w.refused(failure.QuorumNotMet, second(w.sign(short)))
	proof = w.prove(auditlog.UpgradeApplying, b)
	began := w.now
	w.now = began.Add(301)
	w.refused(failure.TimeInvalid, second(w.guard.SignRecord(t.Context(), b, proof)))
	w.now = began.Add(-1)
	w.refused(failure.TimeInvalid, second(w.guard.SignRecord(t.Context(), b, proof)))
	w.now = began
	s := keyregistry.Suspension{IssuedBy: "a2", KernelID: "k1", KeyID: w.id("a2"), Reason: "lost", RegistryDigest: w.config.Root, SuspendedAt: w.now, SuspendedKeyID: w.id("a2")}
	if err := w.guard.Suspend(t.Context(), must(envelope.Seal(t.Context(), w.keys["a2"], envelope.TypeKeySuspension, s))); err != nil {
		t.Fatal(err)
	}
	w.refused(failure.KeySuspended, second(w.sign(b)))
	if err := Init(w.config, w.entry); err == nil {
		t.Fatal("initialised twice")
	}
}

// Whatever step of the write fails, no signature leaves, and the guard stops
// until it is opened again; then the bundle is signed, or its record returned.
func TestMemoryFaults(t *testing.T) {
	for _, step := range []string{"create", "write", "sync", "rename", "sync-directory", "done"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			b := w.bundle(1, upgrade.None, "r")
			proof := w.prove(auditlog.UpgradeApplying, b)
			w.guard.disk.step = func(s string) error {
				if s == step {
					return errors.New("fault")
				}
				return nil
			}
			env, err := w.guard.SignRecord(t.Context(), b, proof)
			if !errors.Is(err, workflow.ErrGuardUnavailable) || len(env.Signatures) != 0 {
				t.Fatalf("a signature left: %v", err)
			}
			if _, err := w.guard.SignRecord(t.Context(), b, proof); !errors.Is(err, workflow.ErrGuardUnavailable) {
				t.Fatalf("goes on: %v", err)
			}
			_ = w.guard.Close()
			w.open()
			must(w.guard.SignRecord(context.Background(), b, proof))
		})
	}
}

func TestSocket(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "s")
	l := must(Listen(path))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, w.guard, l) }()
	c := NewClient(path)
	b := w.bundle(1, upgrade.None, "r")
	proof := w.prove(auditlog.UpgradeApplying, b)
	must(c.SignRecord(t.Context(), b, proof))
	w.refused(failure.AlreadySigned, second(c.SignRecord(t.Context(), w.bundle(1, upgrade.None, "x"), proof)))
	if err := c.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := must(c.Status(t.Context())); !s.Ready || s.KernelID != "k1" {
		t.Fatalf("%+v", s)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, workflow.ErrGuardUnavailable) {
		t.Fatal(err)
	}
}
