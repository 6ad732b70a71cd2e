package guard

import (
	"context"
	"errors"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// rules is a policy that answers as it is told, and keeps what it was asked.
type rules struct {
	digest envelope.Digest
	deny   bool
	err    error
	asked  []upgrade.PolicyInput
}

func (p *rules) Engine() string          { return "test" }
func (p *rules) Digest() envelope.Digest { return p.digest }
func (p *rules) Evaluate(_ context.Context, in upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	p.asked = append(p.asked, in)
	return upgrade.PolicyVerdict{Allow: !p.deny, OnCanaryFailure: upgrade.CanaryRollback}, p.err
}

func pinned(t *testing.T) (*world, *rules) {
	pin := envelope.DigestOf([]byte("policy"))
	p := &rules{digest: pin}
	w := newWorld(t, func(d *keyregistry.Document) { d.Rules.PolicyDigest = &pin })
	w.config.Policy = p
	w.reopen()
	return w, p
}

func TestPinnedPolicy(t *testing.T) {
	w, p := pinned(t)
	p.deny = true
	w.refused(failure.PolicyDenied, second(w.sign(w.quorum(1, upgrade.None)))) // though the gateway says that it allows
	p.deny, p.err = false, errors.New("broken")
	w.refused(failure.PolicyDenied, second(w.sign(w.quorum(1, upgrade.None))))
	p.err = nil
	other := w.quorum(1, upgrade.None)
	other.PolicyDecision.PolicyDigest = envelope.Digest{}
	w.refused(failure.PolicyDenied, second(w.sign(other)))
	p.digest = envelope.DigestOf([]byte("another"))
	w.refused(failure.PolicyDenied, second(w.sign(w.quorum(1, upgrade.None))))
	w.config.Policy = nil
	w.reopen()
	w.refused(failure.PolicyDenied, second(w.sign(w.quorum(1, upgrade.None))))
	p.digest = *w.doc.Rules.PolicyDigest
	w.config.Policy = p
	w.reopen()
	w.deploy(w.quorum(1, upgrade.None))
	p.deny = true
	w.refused(failure.PolicyDenied, second(w.sign(w.emergency(w.manifest(2, rev(1)))))) // never waived
}

// What a rebuilt memory counts as perhaps signed was perhaps denied by the
// guard's policy, which is asked again, as of then, before it is signed.
func TestPinnedPolicyAfterRebuild(t *testing.T) {
	w, p := pinned(t)
	p.deny = true
	b := w.costs(1, upgrade.None, 700)
	w.refused(failure.PolicyDenied, second(w.sign(b)))
	proof := w.prove(int64(len(w.leaves)) - 1)
	w.forget()
	w.ok(w.guard.Rebuild(t.Context(), w))
	w.now = w.now.Add(3600)
	w.refused(failure.PolicyDenied, second(w.guard.SignRecord(t.Context(), b, proof)))
	p.deny = false
	w.refused(failure.AuditProofInvalid, second(w.guard.SignRecord(t.Context(), b, workflow.LogProof{})))
	must(w.guard.SignRecord(t.Context(), b, proof))
	asked := p.asked[len(p.asked)-1]
	if asked.Now != b.Quorum.DecidedAt || len(asked.Spent) != 0 {
		t.Fatalf("asked %+v", asked)
	}
}

func (w *world) costs(n int, base upgrade.Revision, euros int64) upgrade.QuorumBundle {
	m := w.manifest(n, base)
	m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: euros}
	return w.agreed(m)
}

// What is spent is what the guard signed this month, and never less than the
// gateway says in the log.
func TestSpent(t *testing.T) {
	w, p := pinned(t)
	last := func() []upgrade.Cost { return p.asked[len(p.asked)-1].Spent }
	w.deploy(w.costs(1, upgrade.None, 100))
	if len(last()) != 0 {
		t.Fatalf("%v before anything", last())
	}
	failed := w.costs(2, rev(1), 1000)
	must(w.sign(failed))
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplyFailed, failed)))
	w.deploy(w.costs(3, rev(1), 20))
	if got := last(); len(got) != 1 || got[0].MinorUnits != 100 {
		t.Fatalf("%v", got)
	}
	spent := func(b upgrade.QuorumBundle, list ...string) error {
		seq := w.append(auditlog.UpgradeApplying, b.Quorum.UpgradeID, auditlog.Data{auditlog.DataBundleDigest: b.Digest().String(), auditlog.DataSpent: list})
		w.seal()
		return second(w.guard.SignRecord(t.Context(), b, w.prove(seq)))
	}
	for _, bad := range [][]string{{"EUR"}, {"EUR=-1"}, {"EURO=1"}, {"EUR=1", "EUR=2"}, {"EUR=9007199254740992"}} {
		w.refused(failure.PolicyDenied, spent(w.quorum(4, rev(3)), bad...))
	}
	w.ok(spent(w.quorum(4, rev(3)), "EUR=7", "USD=5"))
	if got := last(); len(got) != 2 || got[0].MinorUnits != 120 || got[1] != (upgrade.Cost{Currency: "USD", MinorUnits: 5}) {
		t.Fatalf("%v", got)
	}
	w.now = at("2026-07-01T00:00:00Z")
	w.delegate()
	w.ok(spent(w.quorum(5, rev(4)), "EUR=7"))
	if got := last(); len(got) != 1 || got[0].MinorUnits != 7 {
		t.Fatalf("%v", got)
	}
}

// A guard whose policy is a server's accepts no document that pins a policy.
func TestNoPinWithoutPolicy(t *testing.T) {
	w := newWorld(t)
	if err := w.guard.CheckPolicy(); err != nil {
		t.Fatal(err)
	}
	pin := envelope.DigestOf([]byte("policy"))
	old, previous := w.entry, envelope.DigestOf(w.entry.Document)
	w.now = w.now.Add(60)
	w.doc.Version, w.doc.Previous, w.doc.IssuedAt, w.doc.Rules.PolicyDigest = w.doc.Version+1, &previous, w.now, &pin
	entry := w.issue(people[:3]...)
	w.refused(failure.PolicyDenied, w.guard.AcceptRegistry(t.Context(), entry))
	w.ok(w.guard.AcceptRegistry(t.Context(), old)) // the one in force
	w.config.Policy = &rules{digest: pin}
	w.reopen()
	w.ok(w.guard.AcceptRegistry(t.Context(), entry))
	w.config.Policy = nil
	w.reopen()
	if err := w.guard.CheckPolicy(); failure.ClassOf(err) != failure.PolicyDenied {
		t.Fatal(err)
	}
}
