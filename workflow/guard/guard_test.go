package guard

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestRecordOnceAndAgain(t *testing.T) {
	w := newWorld(t)
	b := w.quorum(1, upgrade.None)
	first := w.deploy(b)
	other := w.manifest(1, upgrade.None)
	other.Rationale = "another"
	w.refused(failure.AlreadySigned, second(w.sign(w.agreed(other))))
	w.refused(failure.BaseRevisionMoved, second(w.sign(w.quorum(2, upgrade.None))))
	w.reopen()
	w.now = w.now.Add(100000)
	again := must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{}))
	if string(again.Bytes()) != string(first.Bytes()) {
		t.Fatal("the same bundle got another envelope")
	}
	w.now = w.now.Add(-200000) // the same bundle is no question of time
	must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{}))
	w.now = w.now.Add(200000)
	w.delegate()
	w.deploy(w.quorum(3, rev(1)))
	if s := must(w.guard.Status(t.Context())); !s.Ready || s.Counts.Records != 2 || s.Counts.Delegations != 2 || s.Signatures != s.Counts.Sum() {
		t.Fatalf("%+v", s)
	}
}

func TestRecordRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		want  failure.Class
		spoil func(w *world, b *upgrade.QuorumBundle)
	}{
		"two approvals": {failure.QuorumNotMet, func(_ *world, b *upgrade.QuorumBundle) {
			b.Approvals, b.Quorum.Approvers = b.Approvals[:2], b.Quorum.Approvers[:2]
		}},
		"one person twice": {failure.DuplicatePerson, func(_ *world, b *upgrade.QuorumBundle) {
			b.Approvals[1], b.Quorum.Approvers[1] = b.Approvals[0], b.Quorum.Approvers[0]
		}},
		"decided long ago": {failure.TimeInvalid, func(w *world, b *upgrade.QuorumBundle) { w.now = w.now.Add(301) }},
		"decided in the future": {failure.TimeInvalid, func(w *world, b *upgrade.QuorumBundle) {
			b.Quorum.DecidedAt = w.now.Add(301)
			b.PolicyDecision.EvaluatedAt = w.now.Add(301)
		}},
		"the policy denies":      {failure.PolicyDenied, func(_ *world, b *upgrade.QuorumBundle) { b.PolicyDecision.Allow = false }},
		"the policy is old":      {failure.TimeInvalid, func(w *world, b *upgrade.QuorumBundle) { b.PolicyDecision.EvaluatedAt = w.now.Add(-301) }},
		"another base":           {failure.BaseRevisionMoved, func(w *world, b *upgrade.QuorumBundle) { *b = w.quorum(1, rev(7)) }},
		"an approver suspended":  {failure.KeySuspended, func(w *world, b *upgrade.QuorumBundle) { w.ok(w.suspend("a2", "a2")) }},
		"the proposer suspended": {failure.KeySuspended, func(w *world, b *upgrade.QuorumBundle) { w.ok(w.suspend("a2", "a1")) }},
		"a new registry":         {failure.BindingMismatch, func(w *world, b *upgrade.QuorumBundle) { w.succeed(func(*keyregistry.Document) {}, people[:3]...) }},
		"a test missing": {failure.TestsNotMet, func(w *world, b *upgrade.QuorumBundle) {
			m := w.manifest(1, upgrade.None)
			m.Preconditions.Tests = []string{"unit"}
			*b = w.agreed(m)
		}},
		"a rollback of what is not live": {failure.BaseRevisionMoved, func(w *world, b *upgrade.QuorumBundle) {
			w.deploy(w.quorum(1, upgrade.None))
			w.deploy(w.quorum(2, rev(1)))
			w.deploy(w.quorum(3, rev(2)))
			m := w.rollback(4, 3, rev(2))
			m.Rollback.UpgradeID = uuid(2)
			*b = w.agreed(m)
		}},
		"a rollback to elsewhere": {failure.BindingMismatch, func(w *world, b *upgrade.QuorumBundle) {
			w.deploy(w.quorum(1, upgrade.None))
			w.deploy(w.quorum(2, rev(1)))
			*b = w.agreed(w.rollback(4, 2, rev(9)))
		}},
		"a Kernel rollback that the guard did not make": {failure.BindingMismatch, func(w *world, b *upgrade.QuorumBundle) {
			w.deploy(w.quorum(1, upgrade.None))
			w.deploy(w.quorum(2, rev(1)))
			w.keys["kernel"] = w.keys["records"]
			*b = w.agreed(w.kernelRollback(4, 2, rev(1)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b := w.quorum(1, upgrade.None)
			c.spoil(w, &b)
			w.refused(c.want, second(w.sign(b)))
			if n := w.guard.mem.upgrades[b.Quorum.UpgradeID]; n != nil && n.BundleDigest == b.Digest() {
				t.Fatal("a refusal was remembered as signed")
			}
		})
	}
}

// What a proof must be: each row spoils one thing of a good one.
func TestProofRefusals(t *testing.T) {
	other := newWorld(t)
	for name, c := range map[string]struct {
		want  failure.Class
		spoil func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof)
	}{
		"no checkpoint":         {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Checkpoint = "no" }},
		"another Kernel's note": {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Checkpoint = other.note }},
		"another type of event": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			*p = w.show(auditlog.UpgradeQuorumReached, b)
		}},
		"another bundle": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			*p = w.show(auditlog.UpgradeApplying, w.quorum(2, upgrade.None))
		}},
		"another index":         {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Entry.Index-- }},
		"another leaf":          {failure.AuditProofInvalid, func(w *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Entry.Leaf = w.leaves[0] }},
		"a hash changed":        {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Entry.Proof[0][0] ^= 1 }},
		"a hash too short":      {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Entry.Proof[0] = p.Entry.Proof[0][1:] }},
		"index beyond the tree": {failure.AuditProofInvalid, func(_ *world, _ upgrade.QuorumBundle, p *workflow.LogProof) { p.Entry.Index = 1 << 40 }},
		"a key not introduced": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			w.event = newKey(signer.Ed25519)
			*p = w.show(auditlog.UpgradeApplying, b)
		}},
		"an audit key as event key": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			w.event = w.keys["audit"]
			*p = w.show(auditlog.UpgradeApplying, b)
		}},
		"an event out of its key's time": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			now := w.now
			w.now = now.Add(86401)
			seq := w.append(auditlog.UpgradeApplying, b.Quorum.UpgradeID, auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()})
			w.now = now
			w.seal()
			*p = w.prove(seq)
		}},
		"an event far from the decision": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			now := w.now
			w.now = now.Add(601)
			seq := w.append(auditlog.UpgradeApplying, b.Quorum.UpgradeID, auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()})
			w.now = now
			w.seal()
			*p = w.prove(seq)
		}},
		"a seq that is not its index": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			kept := w.leaves
			w.leaves = append(w.leaves, nil, nil)
			seq := int64(len(kept))
			e := auditlog.Event{Actor: "kernel", KernelID: "k1", Seq: seq + 5, PrevHash: w.hash, Time: w.now, Type: auditlog.UpgradeApplying, UpgradeID: b.Quorum.UpgradeID, Data: auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()}}
			env := must(auditlog.SealEvent(context.Background(), w.event, e))
			w.leaves = append(kept, env.Bytes())
			w.stored = append(w.stored, must(tlog.StoredHashes(seq, env.Bytes(), w.hashes()))...)
			w.seal()
			*p = w.prove(seq)
		}},
		"an event of another Kernel": {failure.AuditProofInvalid, func(w *world, b upgrade.QuorumBundle, p *workflow.LogProof) {
			seq := int64(len(w.leaves))
			e := auditlog.Event{Actor: "kernel", KernelID: "k2", Seq: seq, PrevHash: w.hash, Time: w.now, Type: auditlog.UpgradeApplying, UpgradeID: b.Quorum.UpgradeID, Data: auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()}}
			env := must(auditlog.SealEvent(context.Background(), w.event, e))
			w.leaves = append(w.leaves, env.Bytes())
			w.stored = append(w.stored, must(tlog.StoredHashes(seq, env.Bytes(), w.hashes()))...)
			w.seal()
			*p = w.prove(seq)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b := w.quorum(1, upgrade.None)
			proof := w.show(auditlog.UpgradeApplying, b)
			c.spoil(w, b, &proof)
			w.refused(c.want, second(w.guard.SignRecord(t.Context(), b, proof)))
		})
	}
}

// A forged event: the right words under a signature that is not its key's.
func TestProofForgedSignature(t *testing.T) {
	w := newWorld(t)
	b := w.quorum(1, upgrade.None)
	seq := int64(len(w.leaves))
	e := auditlog.Event{Actor: "kernel", KernelID: "k1", Seq: seq, PrevHash: w.hash, Time: w.now, Type: auditlog.UpgradeApplying, UpgradeID: b.Quorum.UpgradeID, Data: auditlog.Data{auditlog.DataBundleDigest: b.Digest().String()}}
	env := must(auditlog.SealEvent(t.Context(), w.event, e))
	env.Signatures[0].Sig[3] ^= 1
	w.leaves = append(w.leaves, env.Bytes())
	w.stored = append(w.stored, must(tlog.StoredHashes(seq, env.Bytes(), w.hashes()))...)
	w.seal()
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRecord(t.Context(), b, w.prove(seq))))
}

func TestClockBehind(t *testing.T) {
	w := newWorld(t)
	b := w.quorum(1, upgrade.None)
	proof := w.show(auditlog.UpgradeApplying, b)
	w.now = w.now.Add(-1)
	w.refused(failure.TimeInvalid, second(w.guard.SignRecord(t.Context(), b, proof)))
	w.reopen() // a restart does not forget it
	w.refused(failure.TimeInvalid, second(w.guard.SignRecord(t.Context(), b, proof)))
	w.refused(failure.TimeInvalid, second(w.guard.SignCheckpoint(t.Context(), 9, tlog.Hash{}, nil)))
	if s := must(w.guard.Status(t.Context())); s.Ready || !strings.Contains(s.Reason, "clock") {
		t.Fatalf("%+v", s)
	}
	w.now = w.now.Add(1)
	must(w.guard.SignRecord(t.Context(), b, proof))
}

func TestCheckpoints(t *testing.T) {
	w := newWorld(t)
	size := int64(len(w.leaves))
	w.append(auditlog.UpgradeCreated, uuid(1), nil)
	root := w.root(size + 1)
	w.refused(failure.AuditFork, second(w.guard.SignCheckpoint(t.Context(), size, tlog.Hash{1}, nil)))                           // two roots
	w.refused(failure.AuditFork, second(w.guard.SignCheckpoint(t.Context(), size-1, w.root(size-1), nil)))                       // smaller
	w.refused(failure.AuditFork, second(w.guard.SignCheckpoint(t.Context(), size+1, root, nil)))                                 // no proof
	w.refused(failure.AuditFork, second(w.guard.SignCheckpoint(t.Context(), size+1, tlog.Hash{2}, w.consistency(size, size+1)))) // a fork
	w.refused(failure.FieldInvalid, second(w.guard.SignCheckpoint(t.Context(), 0, tlog.Hash{}, nil)))
	w.refused(failure.FieldInvalid, second(w.guard.SignCheckpoint(t.Context(), -1, tlog.Hash{}, nil)))
	known := len(w.guard.mem.recent)
	must(w.guard.SignCheckpoint(t.Context(), size, w.root(size), nil)) // itself again, which forgets no other
	if n := len(w.guard.mem.recent); n != known {
		t.Errorf("%d checkpoints are known, not %d", n, known)
	}
	w.seal()
}

func TestEventKeys(t *testing.T) {
	w := newWorld(t)
	delegate := func(s signer.Signer, from, to int64) error {
		return second(w.guard.DelegateEventKey(t.Context(), s.Public().DER(), "gw", w.now.Add(from), w.now.Add(to)))
	}
	w.refused(failure.FieldInvalid, delegate(newKey(signer.Ed25519), 0, 86401))
	w.refused(failure.TimeInvalid, delegate(newKey(signer.Ed25519), 301, 4000))
	w.refused(failure.TimeInvalid, delegate(newKey(signer.Ed25519), -301, 4000))
	w.refused(failure.FieldInvalid, delegate(newKey(signer.Ed25519), 0, -1))
	w.refused(failure.FieldInvalid, delegate(newKey(signer.ECDSAP256SHA256), 0, 4000))
	w.refused(failure.RoleNotAllowed, delegate(w.keys["audit"], 0, 4000))
	w.refused(failure.FieldInvalid, second(w.guard.DelegateEventKey(t.Context(), []byte("no key"), "gw", w.now, w.now)))
	key := newKey(signer.Ed25519)
	first := must(w.guard.DelegateEventKey(t.Context(), key.Public().DER(), "gw", w.now, w.now.Add(9)))
	again := must(w.guard.DelegateEventKey(t.Context(), key.Public().DER(), "gw", w.now, w.now.Add(9)))
	if string(first.Bytes()) != string(again.Bytes()) {
		t.Fatal("another delegation")
	}
	w.refused(failure.AlreadySigned, delegate(key, 0, 86400)) // no longer life by asking again
	w.now = w.now.Add(86400 + eventKeyKept + 1)
	w.delegate()
	if n := len(w.guard.mem.eventKeys); n != 1 {
		t.Fatalf("%d event keys are known", n)
	}
}

func TestSuspensions(t *testing.T) {
	w := newWorld(t)
	w.refused(failure.RoleNotAllowed, w.suspend("a3", "a1")) // neither holder nor by role
	w.refused(failure.RoleNotAllowed, w.suspend("a1", "records"))
	w.ok(w.suspend("a1", "a5"))
	w.ok(w.suspend("a1", "a5")) // told twice
	w.ok(w.suspend("a1", "a4"))
	w.refused(failure.QuorumNotMet, w.suspend("a1", "a3")) // two would be left
	w.ok(w.suspend("a3", "a3"))                            // by its holder always
	w.refused(failure.KeySuspended, w.suspend("a3", "a2"))
	w.reopen()
	if !w.guard.suspended(w.id("a5")) || len(w.guard.mem.suspensions) != 3 {
		t.Fatal("suspensions were forgotten")
	}
	// A suspended key does not count under a registry statement either.
	previous := envelope.DigestOf(w.entry.Document)
	w.doc.Version, w.doc.Previous = 2, &previous
	w.refused(failure.KeySuspended, w.guard.AcceptRegistry(t.Context(), w.issue("a1", "a2", "a3")))
}

func TestRegistrySuccession(t *testing.T) {
	w := newWorld(t)
	first, firstDigest := w.entry, envelope.DigestOf(w.entry.Document)
	b := w.quorum(1, upgrade.None)
	w.ok(w.suspend("a5", "a5"))
	w.succeed(func(*keyregistry.Document) {}, people[:3]...)
	w.ok(w.guard.AcceptRegistry(t.Context(), w.entry)) // told twice
	w.refused(failure.RegistryChainBroken, w.guard.AcceptRegistry(t.Context(), first))
	if w.guard.suspended(w.id("a5")) {
		t.Fatal("a suspension outlives the document that it names")
	}
	w.refused(failure.BindingMismatch, second(w.sign(b)))
	w.deploy(w.quorum(1, upgrade.None))

	previous := envelope.DigestOf(w.entry.Document)
	doc := w.doc
	w.doc.Version, w.doc.Previous, w.doc.IssuedAt = 3, &previous, w.now
	w.refused(failure.RegistryThresholdNotMet, w.guard.AcceptRegistry(t.Context(), w.issue("a1", "a2")))
	w.doc.Previous = &firstDigest
	w.refused(failure.RegistryChainBroken, w.guard.AcceptRegistry(t.Context(), w.issue(people...)))
	w.doc.Previous, w.doc.IssuedAt = &previous, w.now
	late := w.issue(people[:3]...)
	w.now = w.now.Add(14*86400 + 1)
	w.refused(failure.TimeInvalid, w.guard.AcceptRegistry(t.Context(), late))
	w.doc = doc
}

// After a rotation of the audit key, a checkpoint by the old one that the
// guard signed is its own still; one that others made with it is not.
func TestAuditKeyRotation(t *testing.T) {
	w := newWorld(t)
	proof := w.show(auditlog.UpgradeQuorumReached, w.quorum(1, upgrade.None))
	old := w.keys["audit"]
	w.keys["audit2"] = newKey(signer.Ed25519)
	w.succeed(func(d *keyregistry.Document) {
		d.Retired = []keyregistry.RetiredKey{{Holder: "kernel", KeyID: d.Kernel.Audit[0].KeyID}}
		d.Kernel.Audit = []keyregistry.Key{w.key("audit2", signer.Ed25519)}
	}, people[:3]...)
	if _, err := w.guard.event(proof, w.now); err != nil {
		t.Fatal(err)
	}
	w.refused(failure.KeyUnknown, second(w.guard.SignCheckpoint(t.Context(), w.guard.mem.last.Size, w.root(w.guard.mem.last.Size), nil)))
	w.config.Audit = w.keys["audit2"]
	w.reopen()
	if _, err := w.guard.event(proof, w.now); err != nil {
		t.Fatal(err)
	}
	proof.Checkpoint = must(auditlog.SignCheckpoint(t.Context(), old, "k1", 1, w.root(1)))
	w.refused(failure.AuditProofInvalid, second(w.guard.event(proof, w.now)))
	w.deploy(w.quorum(1, upgrade.None))
}

// A memory from an old backup is found out by the first checkpoint that it
// does not know, signs nothing from then on, and does not forget that.
func TestOldBackup(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	backup := must(os.ReadFile(w.config.MemoryPath))
	b := w.quorum(2, rev(1))
	proof := w.show(auditlog.UpgradeApplying, b)
	must(w.guard.SignRecord(t.Context(), b, proof))
	note := w.note
	_ = w.guard.Close()
	w.ok(os.WriteFile(w.config.MemoryPath, backup, 0o600))
	w.open()
	other := w.manifest(2, rev(1))
	other.Rationale = "another"
	for range 2 {
		if err := second(w.guard.SignRecord(t.Context(), w.agreed(other), proof)); !errors.Is(err, workflow.ErrGuardUnavailable) {
			t.Fatal(err)
		}
		if s := must(w.guard.Status(t.Context())); s.Ready || !strings.Contains(s.Reason, "old copy") {
			t.Fatalf("%+v", s)
		}
		w.reopen()
	}
	_ = w.guard.Close()
	w.ok(os.WriteFile(w.config.MemoryPath, backup, 0o600))
	w.config.Kept = []string{note}
	w.open()
	if s := must(w.guard.Status(t.Context())); s.Ready {
		t.Fatal("a kept checkpoint does not count")
	}
}

func TestOneGuardOneMemory(t *testing.T) {
	w := newWorld(t)
	if err := second(Open(w.config)); err == nil || !strings.Contains(err.Error(), "another guard") {
		t.Fatal(err)
	}
	_ = w.guard.Close()
	if err := Init(w.config, w.entry); err == nil || !strings.Contains(err.Error(), "initialised once") {
		t.Fatal(err)
	}
}

func TestEmptyMemorySignsNothing(t *testing.T) {
	w := newWorld(t)
	b := w.quorum(1, upgrade.None)
	proof := w.show(auditlog.UpgradeApplying, b)
	_ = w.guard.Close()
	w.ok(os.Remove(w.config.MemoryPath))
	w.open()
	for _, err := range []error{
		second(w.guard.SignRecord(t.Context(), b, proof)), second(w.guard.SignRatification(t.Context(), b, proof)), second(w.guard.SignRollback(t.Context(), w.kernelRollback(2, 1, rev(3)), nil)),
		second(w.guard.SignCheckpoint(t.Context(), 1, tlog.Hash{}, nil)), second(w.guard.DelegateEventKey(t.Context(), w.event.Public().DER(), "x", w.now, w.now)),
		w.guard.AcceptRegistry(t.Context(), w.entry), w.guard.Outcome(t.Context(), proof),
	} {
		if !errors.Is(err, workflow.ErrGuardUnavailable) || !strings.Contains(err.Error(), "empty") {
			t.Fatal(err)
		}
	}
}

// While a device is slow the guard still says how it is, by its last change.
func TestStatusWaitsForNothing(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	w.guard.mu.Lock()
	defer w.guard.mu.Unlock()
	told := make(chan workflow.GuardStatus, 1)
	go func() { told <- must(w.guard.Status(context.Background())) }()
	select {
	case s := <-told:
		if !s.Ready || s.Counts.Records != 1 || s.CheckpointSize != w.guard.mem.last.Size {
			t.Errorf("%+v", s)
		}
	case <-time.After(30 * time.Second):
		t.Error("no status while the guard is busy")
	}
}

func TestProbe(t *testing.T) { w := newWorld(t); w.ok(w.guard.Probe(t.Context())) }
