package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// result is an in-toto test result by ci; n makes payloads differ.
func (h *house) result(patch envelope.Digest, name, result string, n int) envelope.Envelope {
	h.t.Helper()
	env := envelope.Envelope{PayloadType: envelope.TypeInToto, Payload: fmt.Appendf(nil,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":%q}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{"result":%q,"configuration":[{"name":%q}],"n":%d}}`,
		patch.Hex(), result, name, n)}
	env.Signatures = []envelope.Signature{must2(h.t, func() (envelope.Signature, error) { return envelope.Sign(h.t.Context(), h.keys["ci"], env) })}
	return env
}

func (h *house) tested(patch *envelope.Digest, target envelope.ID) *proposal {
	m := h.draft(nil)
	m.Preconditions.Tests, m.Target.Name = []string{"unit test"}, target
	if patch != nil {
		m.PatchHash = *patch
	}
	return h.propose(m)
}

func TestHouseTestResultReachesEveryUpgradeOfItsPatch(t *testing.T) {
	h := newHouse(t)
	a := h.tested(nil, "web")
	b := h.tested(&a.PatchHash, "api")
	other := h.tested(nil, "db")
	for _, p := range []*proposal{a, b, other} {
		if v := h.view(p.UpgradeID); v.Upgrade.State != workflow.StatePaused || v.Next.Action != workflow.ActTests || !slices.Equal(v.UnmetTests, []string{"unit test"}) {
			t.Fatalf("%s, %+v", v.Upgrade.State, v.Next)
		}
	}
	passed := h.result(a.PatchHash, "unit test", "PASSED", 1)
	h.submit(workflow.KindTestResult, passed)
	if h.view(a.UpgradeID).Upgrade.State != workflow.StatePendingApproval || h.view(b.UpgradeID).Upgrade.State != workflow.StatePendingApproval ||
		h.view(other.UpgradeID).Upgrade.State != workflow.StatePaused {
		t.Fatal("the result did not go where its patch is")
	}
	h.submit(workflow.KindTestResult, h.result(a.PatchHash, "unit test", "FAILED", 2))
	if res := h.submit(workflow.KindTestResult, passed); res.Added {
		t.Fatal("an old payload was taken again")
	}
	// Nor does a later upgrade of the patch forget that the newest one failed.
	c := h.tested(&a.PatchHash, "cache")
	for _, p := range []*proposal{a, b, c} {
		if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StatePaused {
			t.Fatalf("%s after a failure", s)
		}
	}
	h.submit(workflow.KindTestResult, h.result(a.PatchHash, "unit test", "WARNED", 3))
	h.run()
	h.approve(a, "bob", "cleo", "dan")
	h.until(a.UpgradeID, workflow.StateCompleted)
	h.checkAll()
}

func TestHouseRejectedForTestsOnlyWhereAQuorumStood(t *testing.T) {
	h := newHouse(t)
	agreed, half := h.tested(nil, "web"), h.tested(nil, "api")
	h.approve(agreed, "bob", "cleo", "dan")
	h.approve(half, "bob", "cleo")
	h.clock.step(ttl - 100)
	h.run()
	time.Sleep(200 * time.Millisecond)
	if s := h.view(agreed.UpgradeID).Upgrade.State; s != workflow.StatePaused {
		t.Fatalf("%s before the TTL", s)
	}
	h.clock.step(200)
	h.until(agreed.UpgradeID, workflow.StateRejected)
	h.until(half.UpgradeID, workflow.StateExpired)
	for _, ev := range h.view(agreed.UpgradeID).Events {
		if ev.Event.Type == auditlog.UpgradeRejected {
			if classes, _ := ev.Event.Data["classes"].([]string); !slices.Equal(classes, []string{string(failure.TestsNotMet)}) {
				t.Fatalf("classes %v", ev.Event.Data)
			}
		}
	}
	h.checkAll()
}

func TestHouseNonsenseDoesNotFillTheLog(t *testing.T) {
	h := newHouse(t)
	p := h.propose(h.draft(nil))
	for i := range 3 * workflow.MaxInvalid {
		env := h.approval(p, "bob", false)
		// Whose key signed is only claimed: each comes in another name.
		who := people[i%len(people)]
		if i >= workflow.MaxInvalid {
			env.Signatures[0].KeyID = envelope.KeyID(fmt.Sprintf("%064x", i))
		} else {
			env.Signatures[0].KeyID = h.id(who)
		}
		env.Signatures[0].Sig = slices.Clone(env.Signatures[0].Sig)
		env.Signatures[0].Sig[0] ^= 1
		if _, err := h.engine.Submit(t.Context(), workflow.KindApproval, env); err == nil {
			t.Fatal("nonsense was taken")
		}
		if n := h.count(p.UpgradeID, auditlog.ApprovalInvalid); i == workflow.MaxInvalid-1 && n > len(people)*workflow.MaxInvalidOfKey {
			t.Fatalf("%d events by %d keys", n, len(people))
		}
	}
	if n := h.count(p.UpgradeID, auditlog.ApprovalInvalid); n != workflow.MaxInvalid {
		t.Fatalf("%d approval.invalid, want %d", n, workflow.MaxInvalid)
	}
	h.approve(p, "bob") // who was impersonated is not shut out
	h.checkAll()
}

// A policy that denies keeps approvals out, and is asked again by itself.
func TestHousePolicyIsAskedAgain(t *testing.T) {
	h := newHouse(t)
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo")
	deny := upgrade.PolicyVerdict{OnCanaryFailure: upgrade.CanaryEscalate, Violations: []upgrade.Violation{{Rule: "freeze", Message: "wait until Monday"}}}
	h.rules.set(deny)
	for range 5 {
		wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(p, "dan", false))), failure.PolicyDenied)
	}
	v := h.view(p.UpgradeID)
	if v.Next.Action != workflow.ActPolicy || v.Policy.Violations[0].Rule != "freeze" {
		t.Fatalf("%+v", v.Next)
	}
	h.rules.set(upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: upgrade.CanaryEscalate})
	h.approve(p, "dan")
	h.rules.set(deny)
	h.run()
	h.until(p.UpgradeID, workflow.StateRejected) // the final check asks anew
	h.checkAll()
}

// A policy that is unreachable, slow or broken denies, with that reason: at every
// record, as an emergency, and at the final check.
func TestHouseBrokenPolicyDenies(t *testing.T) {
	h := newHouse(t)
	base := h.propose(h.draft(nil))
	h.approve(base, "bob", "cleo", "dan")
	h.run()
	h.until(base.UpgradeID, workflow.StateCompleted)
	h.stop()
	ready := h.propose(h.draft(base))
	h.approve(ready, "bob", "cleo", "dan")
	h.rules.breakDown(errors.New("the OPA server does not answer"))
	p := h.propose(h.draft(base))
	if v := h.view(p.UpgradeID); v.Next.Action != workflow.ActPolicy || v.Policy.Allow || v.Policy.Violations[0].Rule != "policy-unavailable" ||
		v.Policy.Violations[0].Message != "the OPA server does not answer" {
		t.Fatalf("%+v, %+v", v.Next, v.Policy)
	}
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(p, "dan", false))), failure.PolicyDenied)
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindTrigger, h.triggerBy(p, "ann"))), failure.PolicyDenied)
	h.run()
	v := h.until(ready.UpgradeID, workflow.StateRejected)
	classes, _ := h.event(ready.UpgradeID, auditlog.UpgradeRejected).Data["classes"].([]string)
	if !slices.Equal(classes, []string{string(failure.PolicyDenied)}) || !strings.Contains(v.Upgrade.Reason, "does not answer") || h.depot.live["web"] != upgrade.RevisionOf(base.PatchHash) {
		t.Fatalf("%v, %q", classes, v.Upgrade.Reason)
	}
	h.rules.breakDown(nil)
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateCompleted)
	h.checkAll()
}

// A test that fails pauses a draft too, before anybody has asked for approvals;
// once it passes, it is open for them.
func TestHouseFailedTestPausesADraft(t *testing.T) {
	h := newHouse(t)
	m := h.draft(nil)
	m.Preconditions.Tests = []string{"unit test", "scan"}
	h.submit(workflow.KindManifest, h.seal("ann", envelope.TypeManifest, m))
	h.submit(workflow.KindTestResult, h.result(m.PatchHash, "scan", "PASSED", 1))
	if s := h.view(m.UpgradeID).Upgrade.State; s != workflow.StateDraft {
		t.Fatalf("%s after a test that passed", s)
	}
	h.submit(workflow.KindTestResult, h.result(m.PatchHash, "unit test", "FAILED", 2))
	v := h.view(m.UpgradeID)
	if v.Upgrade.State != workflow.StatePaused || v.Upgrade.Reason != "required tests are missing or failed: unit test" || !slices.Equal(v.UnmetTests, []string{"unit test"}) {
		t.Fatalf("%s: %s, %q", v.Upgrade.State, v.Upgrade.Reason, v.UnmetTests)
	}
	h.submit(workflow.KindTestResult, h.result(m.PatchHash, "unit test", "PASSED", 3))
	if s := h.view(m.UpgradeID).Upgrade.State; s != workflow.StatePendingApproval {
		t.Fatalf("%s after a newer pass", s)
	}
	h.wantTypes(m.UpgradeID, auditlog.UpgradeCreated, auditlog.UpgradeTestsReported, auditlog.UpgradeTestsReported, auditlog.UpgradePaused,
		auditlog.UpgradeTestsReported, auditlog.UpgradePendingApproval)
}

// Two gateways on one database: each row is worked on by one, and what a dead
// one had claimed the other takes up.
func TestHouseTwoEnginesShareAStore(t *testing.T) {
	h := newHouse(t)
	store := must2(t, func() (*storage.SQLite, error) {
		return storage.OpenSQLite(context.Background(), filepath.Join(h.dir, "db"), h.clock.now)
	})
	defer store.Close()
	other := h.engineOn(store, "two")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- other.Run(ctx) }()
	h.run()
	var list []*proposal
	for i := range 6 {
		m := h.draft(nil)
		m.Target.Name = envelope.ID(fmt.Sprintf("target-%d", i))
		list = append(list, h.propose(m))
	}
	for _, p := range list {
		h.approve(p, "bob", "cleo", "dan")
	}
	for _, p := range list {
		h.until(p.UpgradeID, workflow.StateCompleted)
		if n := h.count(p.UpgradeID, auditlog.UpgradeApplying); n != 1 || h.depot.applied[p.UpgradeID] != 1 {
			t.Fatalf("%d upgrade.applying, applied %d times", n, h.depot.applied[p.UpgradeID])
		}
	}
	cancel()
	<-done
	// A gateway that died with a claim in its hands.
	p := h.draft(nil)
	p.Target.Name = "last"
	h.stop()
	last := h.propose(p)
	h.approve(last, "bob", "cleo", "dan")
	err := store.Update(context.Background(), func(tx workflow.Tx) error {
		claimed, err := tx.Claim(h.now(), h.now().Add(60), "dead", 10)
		if err == nil && len(claimed) != 1 {
			err = fmt.Errorf("claimed %d rows", len(claimed))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.run()
	time.Sleep(300 * time.Millisecond)
	if s := h.view(last.UpgradeID).Upgrade.State; s != workflow.StateQuorumReached {
		t.Fatalf("a claim did not hold: %s", s)
	}
	h.clock.step(61)
	h.until(last.UpgradeID, workflow.StateCompleted)
	h.checkAll()
}
