package guard

import (
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestEmergencyAndRatification(t *testing.T) {
	w := newWorld(t)
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(1, upgrade.None))))) // nothing to go back to
	w.deploy(w.quorum(11, upgrade.None))
	e := w.emergency(w.manifest(2, rev(11)))
	must(w.sign(e))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(3, rev(2))))))
	r := w.ratification(e, people[:3]...)
	w.refused(failure.QuorumNotMet, second(w.ratify(w.ratification(e, "a1", "a2"))))
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRatification(t.Context(), r, w.show(auditlog.UpgradeApplying, r))))
	w.refused(failure.EmergencyNotAllowed, second(w.ratify(w.ratification(w.quorum(11, upgrade.None), people[:3]...))))
	other := w.manifest(2, rev(11))
	other.Rationale = "another"
	w.refused(failure.BundleMismatch, second(w.ratify(w.ratification(w.emergency(other), people[:3]...))))
	first := must(w.ratify(r))
	w.now = w.now.Add(1000000)
	if again := must(w.guard.SignRatification(t.Context(), r, workflow.LogProof{})); string(again.Bytes()) != string(first.Bytes()) {
		t.Fatal("the same bundle got another envelope")
	}
	w.now = w.now.Add(-1000000)
	w.refused(failure.AlreadySigned, second(w.ratify(w.ratification(e, "a1", "a2", "a4"))))
	must(w.sign(w.emergency(w.manifest(3, rev(2))))) // the next is allowed again
}

func TestRatificationLate(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	must(w.sign(e))
	w.now = w.now.Add(172800)
	w.delegate()
	r := w.ratification(e, people[:3]...)
	proof := w.show(auditlog.UpgradeRatified, r)
	w.now = w.now.Add(1)
	w.refused(failure.RatificationLate, second(w.guard.SignRatification(t.Context(), r, proof))) // decided in time, asked too late
	late := w.ratification(e, people[:3]...)
	w.refused(failure.RatificationLate, second(w.ratify(late)))
}

func TestRatificationBySuspendedKey(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	must(w.sign(e))
	w.ok(w.suspend("a3", "a3"))
	w.refused(failure.KeySuspended, second(w.ratify(w.ratification(e, people[:3]...))))
	must(w.ratify(w.ratification(e, "a1", "a2", "a4")))
}

// The sole exception: one emergency of type rollback of an emergency.
func TestEmergencyRollbackOfEmergency(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	must(w.sign(w.emergency(w.manifest(2, rev(1)))))
	r := w.emergency(w.rollback(3, 2, rev(1)))
	must(w.sign(r))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(4, rev(1))))))
	again := w.rollback(5, 3, rev(2))
	again.BaseRevision = rev(1)
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(again))))
	// Its miss is left to people: no automatic rollback of it.
	w.now = w.now.Add(172801)
	w.delegate()
	m := w.kernelRollback(6, 3, rev(2))
	m.BaseRevision = rev(1)
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), m, nil)))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(7, rev(1))))))
	w.deploy(w.quorum(8, rev(1))) // a quorum ends it
	must(w.sign(w.emergency(w.manifest(9, rev(8)))))
}

// failed tells the guard that the deploy of a record failed.
func (w *world) failed(b upgrade.QuorumBundle) {
	w.ok(w.guard.Outcome(w.t.Context(), w.show(auditlog.UpgradeApplyFailed, b)))
}

// That an emergency's deploy failed is the gateway's word: it buys no other
// change without a quorum.
func TestEmergencyWhoseDeployFailed(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	must(w.sign(e))
	w.refused(failure.BaseRevisionMoved, second(w.sign(w.emergency(w.manifest(3, rev(1)))))) // nobody said yet that it failed
	w.failed(e)
	w.reopen()
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(3, rev(1))))))
	w.deploy(w.quorum(4, rev(1))) // a quorum ends it
	must(w.sign(w.emergency(w.manifest(5, rev(4)))))
	// Of one emergency one emergency rollback, whether or not it succeeds.
	back := w.emergency(w.rollback(6, 5, rev(4)))
	must(w.sign(back))
	w.failed(back)
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(7, rev(5))))))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.rollback(8, 5, rev(4))))))
}

// A quorum's record whose deploy failed does not ratify what is live again.
func TestQuorumWhoseDeployFailed(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	record := w.deploy(e)
	q := w.quorum(3, rev(2))
	must(w.sign(q))
	w.failed(q)
	w.now = w.now.Add(172801)
	w.delegate()
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.manifest(4, rev(2))))))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.rollback(5, 2, rev(1))))))
	m := must(w.guard.SignRollback(t.Context(), w.kernelRollback(6, 2, rev(1)), nil))
	must(w.sign(w.automatic(m, e, record)))
}

// automatic is a bundle of the Kernel's own rollback of an emergency.
func (w *world) automatic(manifest envelope.Envelope, e upgrade.QuorumBundle, record envelope.Envelope) upgrade.QuorumBundle {
	b := w.bare(manifest)
	b.PolicyDecision, b.Emergency = nil, &upgrade.Nested{QuorumBundle: e, Record: record}
	return b
}

func TestMissedRatificationRollsBack(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	record := w.deploy(e)
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), nil)))
	w.now = w.now.Add(172800)
	w.delegate()
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), nil)))
	w.now = w.now.Add(1)
	// From ratifyBy on nothing else but a quorum: no emergency, not even a rollback.
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(w.rollback(3, 2, rev(1))))))
	w.refused(failure.BindingMismatch, second(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(7)), nil)))
	wrong := w.kernelRollback(9, 2, rev(1))
	wrong.ProposedBy = "a1"
	w.refused(failure.RoleNotAllowed, second(w.guard.SignRollback(t.Context(), wrong, nil)))
	stale := w.kernelRollback(9, 2, rev(1))
	stale.Timestamp = w.now.Add(-301)
	w.refused(failure.TimeInvalid, second(w.guard.SignRollback(t.Context(), stale, nil)))
	taken := w.kernelRollback(1, 2, rev(1))
	w.refused(failure.AlreadySigned, second(w.guard.SignRollback(t.Context(), taken, nil)))

	m := must(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), nil))
	w.reopen()
	again := must(w.guard.SignRollback(t.Context(), w.kernelRollback(10, 2, rev(1)), nil)) // reused, not remade
	if string(again.Bytes()) != string(m.Bytes()) {
		t.Fatal("a second rollback manifest")
	}
	w.refused(failure.BindingMismatch, second(w.sign(w.agreed(w.rollback(9, 2, rev(1)))))) // one upgradeId, one manifest
	// Another record of the emergency than the one that was signed.
	forged := must(envelope.Seal(t.Context(), w.keys["records"], envelope.TypeInToto, must(upgrade.VerifyBundle(w.guard.mem.regs, ptr(w.emergencyAt(e)))).Compose()))
	w.refused(failure.BindingMismatch, second(w.sign(w.automatic(m, w.emergencyAt(e), forged))))
	b := w.automatic(m, e, record)
	must(w.sign(b))
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, b)))
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, b))) // told twice
	if live := w.guard.mem.targets["prod"].Live; live != rev(2) {
		t.Fatalf("live is %s", live)
	}
}

func ptr[T any](v T) *T { return &v }

// emergencyAt is the same emergency, decided a second earlier.
func (w *world) emergencyAt(e upgrade.QuorumBundle) upgrade.QuorumBundle {
	e.PolicyDecision = ptr(*e.PolicyDecision)
	e.Quorum.DecidedAt = e.Quorum.DecidedAt.Add(-1)
	e.PolicyDecision.EvaluatedAt = e.Quorum.DecidedAt
	return e
}

func TestNoAutomaticRollbackOfRatified(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	e := w.emergency(w.manifest(2, rev(1)))
	record := w.deploy(e)
	must(w.ratify(w.ratification(e, people[:3]...)))
	w.now = w.now.Add(172801)
	w.delegate()
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), nil)))
	// Its canary fails: then the Kernel proposes, and a quorum decides.
	failed := w.show(auditlog.UpgradeCanaryFailed, e)
	m := must(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), &failed))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.automatic(m, e, record))))
	w.deploy(w.agreedOn(m))
}

// preapproved deploys upgrade 2 with this many of its approvals marked.
func preapprovedWorld(t *testing.T, marked int, change ...func(*keyregistry.Document)) (*world, upgrade.QuorumBundle, envelope.Envelope) {
	w := newWorld(t, change...)
	w.deploy(w.quorum(1, upgrade.None))
	u := w.bare(w.sealed(w.manifest(2, rev(1))))
	w.approve(&u, true, people[:marked]...)
	w.approve(&u, false, people[marked:4]...)
	return w, u, w.deploy(u)
}

func (w *world) preapproved(manifest envelope.Envelope, u upgrade.QuorumBundle, record envelope.Envelope, approvers ...envelope.ID) upgrade.QuorumBundle {
	b := w.bare(manifest)
	b.Preapproval, b.Quorum.Approvers = &upgrade.Nested{QuorumBundle: u, Record: record}, approvers
	return b
}

func TestPreapprovedRollback(t *testing.T) {
	w, u, record := preapprovedWorld(t, 3)
	failed := w.show(auditlog.UpgradeCanaryFailed, u)
	m := w.kernelRollback(9, 2, rev(1))
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), m, nil)))
	for _, eventType := range []string{auditlog.UpgradeCanaryPassed, auditlog.UpgradeApplied} {
		p := w.show(eventType, u)
		w.refused(failure.AuditProofInvalid, second(w.guard.SignRollback(t.Context(), m, &p)))
	}
	p := w.show(auditlog.UpgradeCanaryFailed, w.quorum(1, upgrade.None)) // of another upgrade
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRollback(t.Context(), m, &p)))
	failed = w.prove(failed.Entry.Index)
	env := must(w.guard.SignRollback(t.Context(), m, &failed))
	b := w.preapproved(env, u, record, "a1", "a2", "a3")
	denied := b
	denied.PolicyDecision = ptr(*b.PolicyDecision)
	denied.PolicyDecision.Allow = false
	w.refused(failure.PolicyDenied, second(w.sign(denied)))
	first := must(w.sign(b))
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, b)))
	next := w.preapproved(env, u, record, "a1", "a2", "a3")
	next.Quorum.DecidedAt, w.now = w.now.Add(1), w.now.Add(1)
	w.refused(failure.AlreadySigned, second(w.sign(next))) // once per u
	if again := must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{})); string(again.Bytes()) != string(first.Bytes()) {
		t.Fatal("another envelope")
	}
}

func TestPreapprovedRollbackRefusals(t *testing.T) {
	sign := func(w *world, u upgrade.QuorumBundle, record envelope.Envelope, approvers ...envelope.ID) error {
		p := w.show(auditlog.UpgradeCanaryFailed, u)
		env := must(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), &p))
		return second(w.sign(w.preapproved(env, u, record, approvers...)))
	}
	t.Run("two marked", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 2)
		w.refused(failure.QuorumNotMet, sign(w, u, record, "a1", "a2"))
	})
	t.Run("a marked key suspended", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 3)
		w.ok(w.suspend("a3", "a3"))
		w.refused(failure.KeySuspended, sign(w, u, record, "a1", "a2", "a3"))
	})
	t.Run("a day later", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 3)
		w.now = w.now.Add(86401)
		w.delegate()
		w.refused(failure.TimeInvalid, sign(w, u, record, "a1", "a2", "a3"))
	})
	t.Run("approvers who did not mark it", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 3)
		w.refused(failure.BundleMismatch, sign(w, u, record, "a1", "a2", "a4"))
	})
	t.Run("u is live no more", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 3)
		p := w.show(auditlog.UpgradeCanaryFailed, u)
		env := must(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), &p))
		w.deploy(w.quorum(5, rev(2)))
		w.refused(failure.BaseRevisionMoved, second(w.sign(w.preapproved(env, u, record, "a1", "a2", "a3"))))
	})
	t.Run("an emergency is overdue, whose deploy failed", func(t *testing.T) {
		w, u, record := preapprovedWorld(t, 3, func(d *keyregistry.Document) { d.Rules.RatificationWindowSeconds = 60 })
		e := w.emergency(w.manifest(3, rev(2)))
		must(w.sign(e))
		w.failed(e)
		w.now = w.now.Add(60)
		w.refused(failure.EmergencyNotAllowed, sign(w, u, record, "a1", "a2", "a3"))
	})
}

// People may approve the Kernel's rollback as any other: the same manifest.
func TestKernelRollbackByQuorum(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	u := w.quorum(2, rev(1))
	w.deploy(u)
	p := w.show(auditlog.UpgradeCanaryFailed, u)
	env := must(w.guard.SignRollback(t.Context(), w.kernelRollback(9, 2, rev(1)), &p))
	w.deploy(w.agreedOn(env))
	if live := w.guard.mem.targets["prod"]; live.Live != rev(1) || live.LiveUpgrade != uuid(9) {
		t.Fatalf("%+v", live)
	}
}

func TestOutcomeRefusals(t *testing.T) {
	w := newWorld(t)
	b := w.quorum(1, upgrade.None)
	w.refused(failure.BindingMismatch, w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplied, b)))
	w.deploy(b)
	w.refused(failure.AuditProofInvalid, w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeCanaryFailed, b)))
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, b))) // it was applied: nothing is put back
	if live := w.guard.mem.targets["prod"].Live; live != rev(1) {
		t.Fatalf("live is %s", live)
	}
}
