package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
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

// world is a Kernel with its people, its log and its guard.
type world struct {
	t      testing.TB
	keys   map[string]signer.Signer
	doc    keyregistry.Document
	entry  keyregistry.SignedDocument // the newest
	chain  []keyregistry.SignedDocument
	config Config
	now    envelope.Time
	guard  *Guard

	event    signer.Signer // the gateway's event key
	leaves   [][]byte
	stored   []tlog.Hash
	hash     envelope.Digest
	note     string
	records  map[envelope.Digest][]byte
	signed   map[envelope.Digest][]byte // by bundle
	keepBack bool                       // SignRecord's answers are lost
}

var people = []string{"a1", "a2", "a3", "a4", "a5"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func second[T any](_ T, err error) error { return err }

func newKey(algorithm signer.Algorithm) signer.Signer {
	if algorithm == signer.Ed25519 {
		_, k, _ := ed25519.GenerateKey(rand.Reader)
		return must(filekey.New(k, ""))
	}
	return must(filekey.New(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), ""))
}

func at(text string) envelope.Time { return must(envelope.ParseTime(text)) }

// newWorld starts a Kernel; change may alter its first document.
func newWorld(t testing.TB, change ...func(*keyregistry.Document)) *world {
	t.Helper()
	w := makeWorld(t, at("2026-06-01T12:00:00Z"), t.TempDir(), map[string]signer.Signer{}, change...)
	if err := Init(w.config, w.entry); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.begin()
	return w
}

func makeWorld(t testing.TB, now envelope.Time, dir string, keys map[string]signer.Signer, change ...func(*keyregistry.Document)) *world {
	w := &world{t: t, keys: keys, now: now, records: map[envelope.Digest][]byte{}, signed: map[envelope.Digest][]byte{}}
	w.doc = keyregistry.Document{IssuedAt: w.now, KernelID: "k1", Rules: keyregistry.DefaultRules(), Test: true, Version: 1, Requestors: []keyregistry.Person{}, Retired: []keyregistry.RetiredKey{}}
	roles := []keyregistry.Role{"superadmin", "security-engineer", "technical-lead", "division-lead", "division-lead"}
	for i, id := range people {
		w.doc.Approvers = append(w.doc.Approvers, keyregistry.Approver{ID: envelope.ID(id), Name: id, Role: roles[i], Keys: []keyregistry.Key{w.key(id, signer.ECDSAP256SHA256)}})
	}
	w.doc.CI = []keyregistry.Person{{ID: "ci", Name: "ci", Keys: []keyregistry.Key{w.key("ci", signer.ECDSAP256SHA256)}}}
	w.doc.Kernel.Records = []keyregistry.Key{w.key("records", signer.ECDSAP256SHA256)}
	w.doc.Kernel.Audit = []keyregistry.Key{w.key("audit", signer.Ed25519)}
	for _, c := range change {
		c(&w.doc)
	}
	w.entry = w.issue(people...)
	w.chain = []keyregistry.SignedDocument{w.entry}
	w.config = Config{Root: envelope.DigestOf(w.entry.Document), MemoryPath: filepath.Join(dir, "memory"), Records: w.keys["records"], Audit: w.keys["audit"], Clock: func() time.Time { return w.now.Std() }}
	return w
}

// key is a registry entry for a person's key, made where there is none.
func (w *world) key(name string, algorithm signer.Algorithm) keyregistry.Key {
	if w.keys[name] == nil {
		w.keys[name] = newKey(algorithm)
	}
	s := w.keys[name]
	return keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginFile, at("2026-01-01T00:00:00Z"), at("2036-01-01T00:00:00Z"))
}

func (w *world) id(name string) envelope.KeyID { return envelope.KeyID(w.keys[name].Public().KeyID()) }

// issue signs the document as it stands.
func (w *world) issue(signers ...string) keyregistry.SignedDocument {
	data := must(envelope.Canonical(w.doc))
	env := envelope.Envelope{Payload: must(envelope.Canonical(keyregistry.NewStatement(&w.doc, data))), PayloadType: envelope.TypeRegistryStatement}
	for _, id := range signers {
		env.Signatures = append(env.Signatures, must(envelope.Sign(context.Background(), w.keys[id], env)))
	}
	return keyregistry.SignedDocument{Document: data, Statement: env}
}

// succeed issues the next document, and shows it in guard and log.
func (w *world) succeed(change func(*keyregistry.Document), signers ...string) {
	w.t.Helper()
	previous := envelope.DigestOf(w.entry.Document)
	w.doc.Version, w.doc.Previous, w.doc.IssuedAt = w.doc.Version+1, &previous, w.now
	change(&w.doc)
	w.entry = w.issue(signers...)
	w.ok(w.guard.AcceptRegistry(context.Background(), w.entry))
	w.chain = append(w.chain, w.entry)
	w.append(auditlog.RegistryUpdated, "", auditlog.Data{auditlog.DataRecordDigest: envelope.DigestOf(w.entry.Document).String()})
}

func (w *world) open() {
	w.guard = must(Open(w.config))
	g := w.guard
	w.t.Cleanup(func() { _ = g.Close() })
}

func (w *world) reopen() {
	_ = w.guard.Close()
	w.open()
}

// begin makes the log's first events.
func (w *world) begin() {
	w.t.Helper()
	w.now = w.now.Add(10)
	w.delegate()
	w.append(auditlog.RegistryUpdated, "", auditlog.Data{auditlog.DataRecordDigest: envelope.DigestOf(w.entry.Document).String()})
	w.seal()
}

func (w *world) delegate() {
	w.t.Helper()
	w.event = newKey(signer.Ed25519)
	env := must(w.guard.DelegateEventKey(context.Background(), w.event.Public().DER(), "gateway-1", w.now, w.now.Add(auditlog.MaxEventKeySeconds)))
	w.append(auditlog.KeyDelegated, "", auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())})
}

func (w *world) hashes() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = w.stored[index]
		}
		return out, nil
	})
}

func (w *world) append(eventType string, id envelope.UUID, data auditlog.Data) int64 {
	seq := int64(len(w.leaves))
	e := auditlog.Event{Actor: "kernel", KernelID: "k1", Seq: seq, PrevHash: w.hash, Time: w.now, Type: eventType, UpgradeID: id, Data: data}
	env := must(auditlog.SealEvent(context.Background(), w.event, e))
	w.leaves, w.hash = append(w.leaves, env.Bytes()), env.PayloadDigest()
	w.stored = append(w.stored, must(tlog.StoredHashes(seq, env.Bytes(), w.hashes()))...)
	return seq
}

func (w *world) root(size int64) tlog.Hash { return must(tlog.TreeHash(size, w.hashes())) }

func bytesOf(hashes []tlog.Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = slices.Clone(hashes[i][:])
	}
	return out
}

func (w *world) consistency(from, to int64) [][]byte {
	if from == 0 || from >= to {
		return nil
	}
	return bytesOf(must(tlog.ProveTree(to, from, w.hashes())))
}

// seal has the guard sign the log as it stands.
func (w *world) seal() {
	w.t.Helper()
	size := int64(len(w.leaves))
	note, err := w.guard.SignCheckpoint(context.Background(), size, w.root(size), w.consistency(w.guard.mem.last.Size, size))
	w.ok(err)
	w.note = note
}

// prove is the proof of an event under the newest checkpoint.
func (w *world) prove(seq int64) workflow.LogProof {
	size := w.guard.mem.last.Size
	proof := bytesOf(must(tlog.ProveRecord(size, seq, w.hashes())))
	return workflow.LogProof{Checkpoint: w.note, Entry: auditlog.Entry{Index: seq, Leaf: w.leaves[seq], Proof: proof}}
}

// show logs, seals and proves an event about a bundle.
func (w *world) show(eventType string, b upgrade.QuorumBundle) workflow.LogProof {
	w.t.Helper()
	seq := w.append(eventType, b.Quorum.UpgradeID, auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()})
	w.seal()
	return w.prove(seq)
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refused(want failure.Class, err error) {
	w.t.Helper()
	if failure.ClassOf(err) != want || err == nil {
		w.t.Fatalf("got %v, want class %q", err, want)
	}
}

func uuid(n int) envelope.UUID { return envelope.UUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n)) }

func patchOf(n int) envelope.Digest { return envelope.DigestOf([]byte(uuid(n))) }

func rev(n int) upgrade.Revision { return upgrade.RevisionOf(patchOf(n)) }

// manifest is upgrade n of target prod, from base.
func (w *world) manifest(n int, base upgrade.Revision) upgrade.Manifest {
	return upgrade.Manifest{
		BaseRevision: base, Impact: upgrade.Impact{Components: []string{"c"}, Downtime: "none"}, KernelID: "k1", KeyID: w.id("a1"),
		PatchHash: patchOf(n), Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "a1",
		Rationale: "reason", Target: upgrade.Target{Name: "prod", ManifestID: "m"}, Timestamp: w.now, Type: upgrade.TypeCode, UpgradeID: uuid(n),
	}
}

// rollback is upgrade n, which takes the upgrade of, from base, back.
func (w *world) rollback(n, of int, base upgrade.Revision) upgrade.Manifest {
	m := w.manifest(n, rev(of))
	m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "broken", UpgradeID: uuid(of)}
	m.PatchHash, _ = base.Digest()
	return m
}

// kernelRollback is as the gateway asks the guard for it.
func (w *world) kernelRollback(n, of int, base upgrade.Revision) upgrade.Manifest {
	m := w.rollback(n, of, base)
	m.ProposedBy, m.KeyID = upgrade.KernelID, w.id("records")
	return m
}

func (w *world) sealed(m upgrade.Manifest) envelope.Envelope {
	return must(envelope.Seal(context.Background(), w.keys[string(m.ProposedBy)], envelope.TypeManifest, m))
}

// bare is a bundle of a manifest that nobody has decided on.
func (w *world) bare(env envelope.Envelope) upgrade.QuorumBundle {
	m := must(upgrade.OpenManifest(env))
	q := upgrade.QuorumInfo{Approvers: []envelope.ID{}, DecidedAt: w.now, KernelID: "k1", ManifestDigest: env.PayloadDigest(), RegistryDigest: envelope.DigestOf(w.entry.Document), UpgradeID: m.UpgradeID}
	d := &upgrade.PolicyDecision{Allow: true, Engine: "e", EvaluatedAt: w.now, KernelID: "k1", ManifestDigest: q.ManifestDigest, OnCanaryFailure: upgrade.CanaryRollback, UpgradeID: m.UpgradeID, Violations: []upgrade.Violation{}}
	if p := w.doc.Rules.PolicyDigest; p != nil {
		d.PolicyDigest = *p
	}
	return upgrade.QuorumBundle{Manifest: env, Approvals: []envelope.Envelope{}, TestResults: []envelope.Envelope{}, Quorum: q, PolicyDecision: d}
}

func (w *world) approve(b *upgrade.QuorumBundle, preapproved bool, who ...string) {
	m := must(upgrade.OpenManifest(b.Manifest))
	for _, p := range who {
		a := upgrade.Approval{ApprovalTs: w.now, ApproverID: envelope.ID(p), KernelID: "k1", KeyID: w.id(p), ManifestDigest: b.Quorum.ManifestDigest, PatchHash: m.PatchHash,
			RegistryDigest: b.Quorum.RegistryDigest, RollbackPreapproved: preapproved, UpgradeID: m.UpgradeID}
		b.Approvals = append(b.Approvals, must(envelope.Seal(context.Background(), w.keys[p], envelope.TypeApproval, a)))
		b.Quorum.Approvers = append(b.Quorum.Approvers, a.ApproverID)
	}
}

// quorum is a bundle under which three people agree to upgrade n.
func (w *world) quorum(n int, base upgrade.Revision) upgrade.QuorumBundle {
	return w.agreed(w.manifest(n, base))
}

func (w *world) agreed(m upgrade.Manifest) upgrade.QuorumBundle { return w.agreedOn(w.sealed(m)) }

func (w *world) agreedOn(env envelope.Envelope) upgrade.QuorumBundle {
	b := w.bare(env)
	w.approve(&b, false, people[:3]...)
	return b
}

// emergency is a bundle of a triggered emergency.
func (w *world) emergency(m upgrade.Manifest) upgrade.QuorumBundle {
	b := w.bare(w.sealed(m))
	e := upgrade.EmergencyTrigger{KernelID: "k1", KeyID: w.id("a1"), ManifestDigest: b.Quorum.ManifestDigest, PatchHash: m.PatchHash,
		Reason: "fire", RegistryDigest: b.Quorum.RegistryDigest, TriggeredAt: w.now, TriggeredBy: "a1", UpgradeID: m.UpgradeID}
	env := must(envelope.Seal(context.Background(), w.keys["a1"], envelope.TypeEmergencyTrigger, e))
	b.EmergencyTrigger = &env
	return b
}

// ratification is a bundle that ratifies an emergency.
func (w *world) ratification(emergency upgrade.QuorumBundle, who ...string) upgrade.QuorumBundle {
	r := w.bare(emergency.Manifest)
	r.PolicyDecision, r.TestResults = nil, nil
	w.approve(&r, false, who...)
	return r
}

func (w *world) sign(b upgrade.QuorumBundle) (envelope.Envelope, error) {
	w.t.Helper()
	w.records[b.Digest()] = b.Bytes()
	env, err := w.guard.SignRecord(context.Background(), b, w.show(auditlog.UpgradeApplying, b))
	if err == nil && !w.keepBack {
		w.signed[b.Digest()] = env.Bytes()
	}
	return env, err
}

// deploy signs, and tells that it went well.
func (w *world) deploy(b upgrade.QuorumBundle) envelope.Envelope {
	w.t.Helper()
	env, err := w.sign(b)
	w.ok(err)
	w.ok(w.guard.Outcome(context.Background(), w.show(auditlog.UpgradeApplied, b)))
	return env
}

func (w *world) ratify(b upgrade.QuorumBundle) (envelope.Envelope, error) {
	w.t.Helper()
	w.records[b.Digest()] = b.Bytes()
	env, err := w.guard.SignRatification(context.Background(), b, w.show(auditlog.UpgradeRatified, b))
	if err == nil && !w.keepBack {
		w.signed[b.Digest()] = env.Bytes()
	}
	return env, err
}

func (w *world) suspend(by, whose string) error {
	s := keyregistry.Suspension{IssuedBy: envelope.ID(by), KernelID: "k1", KeyID: w.id(by), Reason: "lost", RegistryDigest: envelope.DigestOf(w.entry.Document), SuspendedAt: w.now, SuspendedKeyID: w.id(whose)}
	env := must(envelope.Seal(context.Background(), w.keys[by], envelope.TypeKeySuspension, s))
	if err := w.guard.Suspend(context.Background(), env); err != nil {
		return err
	}
	w.records[env.PayloadDigest()] = env.Bytes()
	w.append(auditlog.RegistryKeySuspended, "", auditlog.Data{auditlog.DataRecordDigest: env.PayloadDigest().String()})
	return nil
}
