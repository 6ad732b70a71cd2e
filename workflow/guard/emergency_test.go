package guard

import (
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (w *world) emergency(n int, base upgrade.Revision) upgrade.QuorumBundle {
	b := w.bundle(n, base, "urgent")
	m := must(upgrade.OpenManifest(b.Manifest))
	e := upgrade.EmergencyTrigger{KernelID: "k1", KeyID: w.id("a1"), ManifestDigest: b.Quorum.ManifestDigest, PatchHash: m.PatchHash,
		Reason: "fire", RegistryDigest: w.config.Root, TriggeredAt: w.now, TriggeredBy: "a1", UpgradeID: m.UpgradeID}
	env := must(envelope.Seal(w.t.Context(), w.keys["a1"], envelope.TypeEmergencyTrigger, e))
	b.EmergencyTrigger, b.Approvals, b.Quorum.Approvers = &env, []envelope.Envelope{}, []envelope.ID{}
	return b
}

func patch(b upgrade.QuorumBundle) upgrade.Revision {
	return upgrade.RevisionOf(envelope.DigestOf([]byte(b.Quorum.UpgradeID)))
}

func TestEmergency(t *testing.T) {
	w := newWorld(t)
	base := w.bundle(1, upgrade.None, "base")
	must(w.sign(base))
	e := w.emergency(2, patch(base))
	must(w.sign(e))
	w.refused(failure.EmergencyNotAllowed, second(w.sign(w.emergency(3, patch(e)))))

	r := w.bundle(2, patch(base), "urgent")
	r.Manifest, r.Quorum.ManifestDigest, r.PolicyDecision, r.TestResults = e.Manifest, e.Quorum.ManifestDigest, nil, nil
	m := must(upgrade.OpenManifest(e.Manifest))
	for i, p := range people[:3] {
		a := upgrade.Approval{ApprovalTs: w.now, ApproverID: envelope.ID(p), KernelID: "k1", KeyID: w.id(p), ManifestDigest: r.Quorum.ManifestDigest, PatchHash: m.PatchHash, RegistryDigest: w.config.Root, UpgradeID: m.UpgradeID}
		r.Approvals[i] = must(envelope.Seal(t.Context(), w.keys[p], envelope.TypeApproval, a))
	}
	must(w.guard.SignRatification(t.Context(), r, w.prove(auditlog.UpgradeRatified, r)))
	must(w.sign(w.emergency(3, patch(e))))
}

func TestMissedRatificationRollsBack(t *testing.T) {
	w := newWorld(t)
	base := w.bundle(1, upgrade.None, "base")
	must(w.sign(base))
	e := w.emergency(2, patch(base))
	record := must(w.sign(e))
	began := w.now
	m := *must(upgrade.OpenManifest(e.Manifest))
	m.UpgradeID, m.Type, m.ProposedBy = "00000000-0000-4000-8000-000000000009", upgrade.TypeRollback, upgrade.KernelID
	m.Rollback = &upgrade.Rollback{Reason: "not ratified", UpgradeID: e.Quorum.UpgradeID}
	m.BaseRevision = patch(e)
	m.PatchHash, _ = patch(base).Digest()
	w.refused(failure.NotYetDue, second(w.guard.SignRollback(t.Context(), m, nil)))
	w.now = began.Add(172801)
	m.Timestamp = w.now
	env := must(w.guard.SignRollback(t.Context(), m, nil))
	other := m
	other.Rationale = "another"
	w.refused(failure.AlreadySigned, second(w.guard.SignRollback(t.Context(), other, nil)))
	b := upgrade.QuorumBundle{Approvals: []envelope.Envelope{}, TestResults: []envelope.Envelope{}, Manifest: env,
		Emergency: &upgrade.Nested{QuorumBundle: e, Record: record},
		Quorum:    upgrade.QuorumInfo{Approvers: []envelope.ID{}, DecidedAt: w.now, KernelID: "k1", ManifestDigest: env.PayloadDigest(), RegistryDigest: w.config.Root, UpgradeID: m.UpgradeID}}
	must(w.sign(b))
	failed := w.prove(auditlog.UpgradeApplyFailed, b)
	if err := w.guard.Outcome(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if live := w.guard.mem.Targets["prod"].Live; live != patch(e) {
		t.Fatalf("live is %s", live)
	}
}
