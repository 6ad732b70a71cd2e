package workflow_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func wantClass(t *testing.T, err error, want failure.Class) {
	t.Helper()
	if failure.ClassOf(err) != want {
		t.Fatalf("got %v, want class %q", err, want)
	}
}

func second[T any](_ T, err error) error { return err }

// What a manifest rests on is asked before it is taken.
func TestTargetThatDoesNotAnswer(t *testing.T) {
	h := newHouse(t)
	m := h.seal("ann", envelope.TypeManifest, h.draft(nil))
	h.depot.away = errors.New("no route")
	if _, err := h.engine.Submit(t.Context(), workflow.KindManifest, m); !errors.Is(err, workflow.ErrTargetUnavailable) {
		t.Fatal(err)
	}
	h.depot.away = nil
	if r := h.submit(workflow.KindManifest, m); !r.Added {
		t.Fatal("the first attempt had stored it")
	}
}

func TestHouseNormalRejectedRolledBack(t *testing.T) {
	h := newHouse(t)
	h.run()
	m := h.draft(nil)
	m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: 700}
	base := h.through(m)
	if v := h.verify(base.UpgradeID, upgrade.CaseQuorum); len(v.Approvers) != 3 {
		t.Fatalf("approvers %v", v.Approvers)
	}
	next := h.through(h.draft(base))
	if in := h.rules.asked[len(h.rules.asked)-1]; len(in.Spent) != 1 || in.Spent[0].MinorUnits != 700 {
		t.Fatalf("the policy was told of %v spent", in.Spent)
	}
	no := h.propose(h.draft(next))
	h.reject(no, "bob", "cleo", "dan")
	if v := h.view(no.UpgradeID); v.Upgrade.State != workflow.StateRejected || v.Next.Action != workflow.ActNone {
		t.Fatal(v.Upgrade.State)
	}
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindManifest, h.seal("ann", envelope.TypeManifest, h.undo(base)))), failure.BaseRevisionMoved)
	other := h.undo(next)
	other.PatchHash = h.put("what was never live")
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindManifest, h.seal("ann", envelope.TypeManifest, other))), failure.BindingMismatch)
	undo := h.through(h.undo(next))
	h.verify(undo.UpgradeID, upgrade.CaseQuorum)
	h.until(next.UpgradeID, workflow.StateRolledBack)
	if h.depot.live["web"] != upgrade.RevisionOf(base.PatchHash) || h.count(next.UpgradeID, auditlog.UpgradeRollback) != 1 {
		t.Fatalf("%s is live", h.depot.live["web"])
	}
	h.checkAll()
}

func TestHouseEmergencyRatified(t *testing.T) {
	h := newHouse(t)
	h.run()
	base := h.through(h.draft(nil))
	p := h.propose(h.draft(base))
	h.submit(workflow.KindTrigger, h.triggerBy(p, "bob"))
	v := h.until(p.UpgradeID, workflow.StateEmergencyApplied)
	if v.Upgrade.RatifyBy == nil || v.Next.Action != workflow.ActRatify || v.Next.Missing != 3 || v.Emergency == nil {
		t.Fatalf("%+v", v.Next)
	}
	if file := h.verify(p.UpgradeID, upgrade.CaseEmergency); file.Ratification != nil {
		t.Fatal("ratified by nobody")
	}
	h.approve(p, "ann", "dan")
	time.Sleep(150 * time.Millisecond)
	if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StateEmergencyApplied {
		t.Fatalf("two ratified: %s", s)
	}
	h.approve(p, "eve")
	v = h.until(p.UpgradeID, workflow.StateCompleted)
	if file := h.verify(p.UpgradeID, upgrade.CaseEmergency); file.Ratification == nil || len(file.Ratification.Approvers) != 3 || !v.Ratified {
		t.Fatal("no ratification in the file")
	}
	done := h.event(p.UpgradeID, auditlog.UpgradeCompleted).Data
	if who, _ := done["approvers"].([]string); !slices.Equal(who, []string{"ann", "dan", "eve"}) || done["ratification"] == nil {
		t.Fatalf("upgrade.completed says %v", done)
	}
	// The way is free for another.
	q := h.propose(h.draft(p))
	h.submit(workflow.KindTrigger, h.triggerBy(q, "ann"))
	h.until(q.UpgradeID, workflow.StateEmergencyApplied)
	h.checkAll()
}

func TestHouseEmergencyMissedIsRolledBack(t *testing.T) {
	for name, down := range map[string]string{"running": "", "gateway down at the deadline": "gateway", "guard down at the deadline": "guard"} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.run()
			base := h.through(h.draft(nil))
			p := h.propose(h.draft(base))
			h.submit(workflow.KindTrigger, h.triggerBy(p, "ann"))
			h.until(p.UpgradeID, workflow.StateEmergencyApplied)
			h.approve(p, "ann", "dan")
			switch down {
			case "gateway":
				h.stop()
				h.clock.step(window + 100)
				h.restart()
			case "guard":
				h.stopGuard()
				h.clock.step(window + 100)
				time.Sleep(300 * time.Millisecond)
				h.openGuard()
			default:
				h.clock.step(window + 1)
			}
			h.until(p.UpgradeID, workflow.StateRolledBack)
			id := h.rollbackOf(p.UpgradeID)
			h.until(id, workflow.StateCompleted)
			v := h.verify(id, upgrade.CaseAutomatic)
			if v.Nested == nil || h.depot.live["web"] != upgrade.RevisionOf(base.PatchHash) {
				t.Fatal("not taken back")
			}
			if h.count(p.UpgradeID, auditlog.UpgradeRatificationFailed) != 1 || h.depot.applied[id] != 1 {
				t.Fatal("missed not once, or taken back not once")
			}
			h.checkAll()
		})
	}
}

func TestHouseEmergencyRollbackIsLeftToPeople(t *testing.T) {
	h := newHouse(t)
	h.run()
	base := h.through(h.draft(nil))
	p := h.propose(h.draft(base))
	h.submit(workflow.KindTrigger, h.triggerBy(p, "ann"))
	h.until(p.UpgradeID, workflow.StateEmergencyApplied)
	undo := h.propose(h.undo(p))
	h.submit(workflow.KindTrigger, h.triggerBy(undo, "bob"))
	h.until(undo.UpgradeID, workflow.StateEmergencyApplied)
	h.until(p.UpgradeID, workflow.StateRolledBack)
	h.clock.step(window + 1)
	h.await(func() bool { return h.count(undo.UpgradeID, auditlog.UpgradeRatificationFailed) > 0 })
	v := h.view(undo.UpgradeID)
	if v.Upgrade.State != workflow.StateEmergencyApplied || v.Upgrade.RollbackID != "" || v.Next.Action != workflow.ActDecide {
		t.Fatalf("%s, %+v", v.Upgrade.State, v.Next)
	}
	if n := h.count(undo.UpgradeID, auditlog.UpgradeRatificationFailed); n != 1 {
		t.Fatalf("%d upgrade.ratification_failed", n)
	}
	// People decide, with a quorum, on top of it; then it waits for nothing.
	h.through(h.draft(undo))
	h.until(undo.UpgradeID, workflow.StateCompleted)
	if done := h.event(undo.UpgradeID, auditlog.UpgradeCompleted).Data; done["code"] != "superseded" || h.view(undo.UpgradeID).Ratified {
		t.Fatalf("%v", done)
	}
	h.checkAll()
}

func TestHouseEmergencyAbuses(t *testing.T) {
	h := newHouse(t)
	h.run()
	first := h.propose(h.draft(nil))
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindTrigger, h.triggerBy(first, "ann"))), failure.EmergencyNotAllowed)
	h.approve(first, "bob", "cleo", "dan")
	h.until(first.UpgradeID, workflow.StateCompleted)

	p := h.propose(h.draft(first))
	send := func(p *proposal, who string) error {
		return second(h.engine.Submit(t.Context(), workflow.KindTrigger, h.triggerBy(p, who)))
	}
	wantClass(t, send(p, "cleo"), failure.RoleNotAllowed)
	wantClass(t, send(p, "dan"), failure.RoleNotAllowed)
	old := h.triggerBy(p, "ann")
	h.clock.step(901)
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindTrigger, old)), failure.TimeInvalid)
	h.rules.set(upgrade.PolicyVerdict{OnCanaryFailure: upgrade.CanaryEscalate, Violations: []upgrade.Violation{{Rule: "freeze", Message: "no"}}})
	wantClass(t, send(p, "ann"), failure.PolicyDenied)
	h.rules.set(upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: upgrade.CanaryEscalate})
	no := h.propose(h.draft(first))
	h.reject(no, "bob", "cleo", "dan")
	if err := send(no, "ann"); !errors.Is(err, workflow.ErrConflict) {
		t.Fatalf("an emergency of a rejected upgrade: %v", err)
	}
	if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StatePendingApproval || h.depot.live["web"] != upgrade.RevisionOf(first.PatchHash) {
		t.Fatalf("an abuse changed something: %s", s)
	}
	// What is never waived: the bytes that the manifest names, and what they go on.
	file := h.artifactFile(p.PatchHash)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	wantClass(t, send(p, "ann"), failure.ArtifactMismatch)
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	h.depot.mu.Lock()
	h.depot.live["web"] = upgrade.RevisionOf(envelope.DigestOf([]byte("of somebody else")))
	h.depot.mu.Unlock()
	wantClass(t, send(p, "ann"), failure.BaseRevisionMoved)
	h.depot.mu.Lock()
	h.depot.live["web"] = upgrade.RevisionOf(first.PatchHash)
	h.depot.mu.Unlock()
	q := h.propose(h.draft(first))
	h.submit(workflow.KindTrigger, h.triggerBy(p, "ann"))
	h.until(p.UpgradeID, workflow.StateEmergencyApplied)
	wantClass(t, send(q, "bob"), failure.EmergencyNotAllowed)
	further := h.propose(h.draft(p))
	wantClass(t, send(further, "bob"), failure.EmergencyNotAllowed)
	h.checkAll()
}

// A trigger of a suspended key breaks nothing, nor does one of an upgrade whose
// time is over, even where the engine has not come to say so.
func TestHouseEmergencyOfASuspendedKeyOrTooLate(t *testing.T) {
	h := newHouse(t)
	h.run()
	base := h.through(h.draft(nil))
	p := h.propose(h.draft(base))
	h.suspend("bob", "ann")
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindTrigger, h.triggerBy(p, "bob"))), failure.KeySuspended)
	h.stop()
	h.clock.step(ttl + 1)
	if _, err := h.engine.Submit(t.Context(), workflow.KindTrigger, h.triggerBy(p, "ann")); !errors.Is(err, workflow.ErrConflict) {
		t.Fatalf("an emergency of an upgrade whose time is over: %v", err)
	}
	if h.depot.live["web"] != upgrade.RevisionOf(base.PatchHash) {
		t.Fatal("it is live")
	}
	h.checkAll()
}

func failing(codes ...string) workflow.CanaryResult {
	return workflow.CanaryResult{Codes: append(codes, "a path /etc/secret"), Report: []byte(`{"samples":3}`)}
}

func TestHouseCanaryPasses(t *testing.T) {
	h := newHouse(t)
	s := &scale{result: workflow.CanaryResult{Passed: true, Report: []byte(`{"samples":9}`)}}
	h.canary = s
	h.engine = h.newEngine()
	h.run()
	p := h.through(h.draft(nil))
	v := h.view(p.UpgradeID)
	if !v.Canary.Passed || v.Canary.Baseline == v.Canary.Report || h.count(p.UpgradeID, auditlog.UpgradeCanaryPassed) != 1 {
		t.Fatalf("%+v", v.Canary)
	}
	if len(s.seen) != 1 || string(s.seen[0]) != `{"p99":10}` {
		t.Fatalf("baselines %q", s.seen)
	}
	// A second upgrade with the same numbers has reports of its own.
	q := h.through(h.draft(p))
	if w := h.view(q.UpgradeID); w.Canary.Report == v.Canary.Report {
		t.Fatal("two upgrades share one report")
	}
	h.checkAll()
}

func TestHouseCanaryFailedRollbackByThree(t *testing.T) {
	h, s := newWatched(t)
	base := h.through(h.draft(nil))
	s.set(failing("p99"))
	p := h.propose(h.draft(base))
	// Two pre-approve, which is not enough.
	h.submit(workflow.KindApproval, h.approval(p, "ann", true))
	h.submit(workflow.KindApproval, h.approval(p, "bob", true))
	h.approve(p, "cleo")
	h.until(p.UpgradeID, workflow.StateRollbackScheduled)
	id := h.rollbackOf(p.UpgradeID)
	v := h.until(id, workflow.StatePendingApproval)
	if v.Manifest.ProposedBy != upgrade.KernelID || v.Next.Missing != 3 || h.depot.live["web"] != upgrade.RevisionOf(p.PatchHash) {
		t.Fatalf("%+v", v.Next)
	}
	s.set(workflow.CanaryResult{Passed: true})
	h.approve(&proposal{v.Manifest, v.Upgrade.ManifestDigest}, "dan", "eve", "ann")
	h.until(id, workflow.StateCompleted)
	h.until(p.UpgradeID, workflow.StateRolledBack)
	h.verify(id, upgrade.CaseQuorum)
	for _, ev := range h.view(p.UpgradeID).Events {
		if ev.Event.Type == auditlog.UpgradeCanaryFailed {
			if codes, ok := ev.Event.Data["codes"].([]string); !ok || len(codes) != 1 || codes[0] != "p99" {
				t.Fatalf("codes %v", ev.Event.Data["codes"])
			}
		}
	}
	h.checkAll()
}

func TestHouseCanaryFailedPreapproved(t *testing.T) {
	h, s := newWatched(t)
	base := h.through(h.draft(nil))
	s.set(failing("error_rate"))
	p := h.propose(h.draft(base))
	for _, who := range []string{"ann", "bob", "eve"} {
		h.submit(workflow.KindApproval, h.approval(p, who, true))
	}
	h.until(p.UpgradeID, workflow.StateRolledBack)
	id := h.rollbackOf(p.UpgradeID)
	// The rollback's own canary fails too: that is for people, never undone.
	h.await(func() bool { return h.view(id).Next.Action == workflow.ActDecide })
	if v := h.view(id).Upgrade; v.State != workflow.StateValidating || v.RollbackID != "" {
		t.Fatalf("%s, %s", v.State, v.RollbackID)
	}
	file := h.verify(id, upgrade.CasePreapproved)
	if len(file.Approvers) != 3 || h.depot.live["web"] != upgrade.RevisionOf(base.PatchHash) {
		t.Fatalf("approvers %v, live %s", file.Approvers, h.depot.live["web"])
	}
	h.checkAll()
}

func TestHousePreapprovalOfTheSuspendedGoesToPeople(t *testing.T) {
	h, s := newWatched(t)
	base := h.through(h.draft(nil))
	gate := h.gated(s)
	s.set(failing("p95"))
	p := h.propose(h.draft(base))
	for _, who := range []string{"ann", "bob", "eve"} {
		h.submit(workflow.KindApproval, h.approval(p, who, true))
	}
	h.until(p.UpgradeID, workflow.StateValidating)
	h.suspend("eve", "ann")
	close(gate)
	id := h.rollbackOf(p.UpgradeID)
	v := h.until(id, workflow.StatePendingApproval)
	if h.depot.live["web"] != upgrade.RevisionOf(p.PatchHash) {
		t.Fatal("rolled back by a suspended key")
	}
	h.approve(&proposal{v.Manifest, v.Upgrade.ManifestDigest}, "ann", "bob", "cleo")
	h.until(p.UpgradeID, workflow.StateRolledBack)
	h.checkAll()
}

// newWatched is a house that runs, with a canary that passes until it is told else.
func newWatched(t *testing.T) (*house, *scale) {
	t.Helper()
	h, s := newHouse(t), &scale{result: workflow.CanaryResult{Passed: true}}
	h.canary = s
	h.engine = h.newEngine()
	h.run()
	return h, s
}

// gated lets the canary watch until the gate is closed.
func (h *house) gated(s *scale) (gate chan struct{}) {
	h.t.Helper()
	gate = make(chan struct{})
	h.stop()
	h.canary = waiting{s, gate}
	h.engine = h.newEngine()
	h.run()
	return gate
}

// waiting is a canary that watches until the gate opens.
type waiting struct {
	*scale
	gate chan struct{}
}

func (w waiting) Watch(ctx context.Context, target envelope.ID, baseline []byte) (workflow.CanaryResult, error) {
	select {
	case <-w.gate:
	case <-ctx.Done():
		return workflow.CanaryResult{}, ctx.Err()
	}
	return w.scale.Watch(ctx, target, baseline)
}

func TestHouseCanaryOfTheFirstUpgradeEscalates(t *testing.T) {
	h := newHouse(t)
	h.canary = &scale{result: workflow.CanaryResult{Passed: true, Inconclusive: true, Report: []byte(`{"samples":0}`)}}
	h.engine = h.newEngine()
	h.run()
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	h.await(func() bool { return h.count(p.UpgradeID, auditlog.UpgradeCanaryFailed) > 0 })
	v := h.view(p.UpgradeID)
	if v.Upgrade.State != workflow.StateValidating || v.Upgrade.RollbackID != "" || v.Next.Action != workflow.ActDecide {
		t.Fatalf("%s, %+v", v.Upgrade.State, v.Next)
	}
	h.checkAll()
}

// successor is the next registry document: eve's key is replaced.
func (h *house) successor() (keyregistry.Document, keyregistry.SignedDocument) {
	doc := h.doc
	previous := h.reg
	doc.Version, doc.Previous, doc.IssuedAt = doc.Version+1, &previous, h.now()
	doc.Approvers = append([]keyregistry.Approver{}, doc.Approvers...)
	doc.Retired = append(append([]keyregistry.RetiredKey{}, doc.Retired...), keyregistry.RetiredKey{Holder: "eve", KeyID: h.id("eve")})
	slices.SortFunc(doc.Retired, func(a, b keyregistry.RetiredKey) int { return strings.Compare(string(a.KeyID), string(b.KeyID)) })
	doc.Approvers[4].Keys = h.key("eve")
	return doc, registrytest.Entry(&doc, h.keys["ann"], h.keys["bob"], h.keys["cleo"], h.keys["eve"])
}

func (h *house) rotate() {
	h.t.Helper()
	h.clock.step(1) // what is signed from here on is newer
	doc, entry := h.successor()
	for range 2 { // the same again is no error
		if err := h.engine.AcceptRegistry(h.t.Context(), entry); err != nil {
			h.t.Fatal(err)
		}
	}
	h.doc, h.reg = doc, envelope.DigestOf(entry.Document)
}

func (h *house) suspend(who, by string) envelope.Envelope {
	h.t.Helper()
	env := h.seal(by, envelope.TypeKeySuspension, keyregistry.Suspension{IssuedBy: envelope.ID(by), KernelID: "k1", KeyID: h.id(by), Reason: "free text",
		RegistryDigest: h.reg, SuspendedAt: h.now(), SuspendedKeyID: h.id(who)})
	for range 2 {
		if err := h.engine.Suspend(h.t.Context(), env); err != nil {
			h.t.Fatal(err)
		}
	}
	return env
}

func (h *house) logged(event string) int {
	n := 0
	err := h.store.View(context.Background(), func(r workflow.Reader) error {
		events, err := r.Events(0, 100000)
		for _, ev := range events {
			if ev.Event.Type == event {
				n++
			}
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func TestHouseRotationWhilePending(t *testing.T) {
	h := newHouse(t)
	h.run()
	base := h.through(h.draft(nil))
	p := h.propose(h.draft(base))
	h.approve(p, "bob", "cleo")
	h.rotate()
	h.rotate()
	v := h.view(p.UpgradeID)
	for _, seat := range v.Seats {
		if want := map[envelope.ID]upgrade.SeatStatus{"bob": "void", "cleo": "void"}[seat.Person]; want != "" && seat.Status != want {
			t.Fatalf("%s is %s", seat.Person, seat.Status)
		}
	}
	if v.Registry != h.reg || v.Next.Missing != 3 || len(v.Next.Who) != 5 {
		t.Fatalf("%+v", v.Next)
	}
	if n := h.logged(auditlog.RegistryUpdated); n != 3 {
		t.Fatalf("%d registry.updated", n)
	}
	h.approve(p, "bob", "dan")
	if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StatePendingApproval {
		t.Fatalf("two approvals under the new document: %s", s)
	}
	h.approve(p, "eve")
	h.until(p.UpgradeID, workflow.StateCompleted)
	if file := h.verify(p.UpgradeID, upgrade.CaseQuorum); file.Registry.Version() != 3 {
		t.Fatalf("version %d", file.Registry.Version())
	}
	h.verify(base.UpgradeID, upgrade.CaseQuorum)
	h.checkAll()
}

// A new registry without the CI key that reported a test takes its word back: the
// upgrade pauses by itself.
func TestHouseRotationOfCI(t *testing.T) {
	h := newHouse(t)
	h.run()
	p := h.tested(nil, "web")
	h.submit(workflow.KindTestResult, h.result(p.PatchHash, "unit test", "PASSED", 1))
	h.until(p.UpgradeID, workflow.StatePendingApproval)
	h.clock.step(1)
	old, doc := h.id("ci"), h.doc
	previous := h.reg
	doc.Version, doc.Previous, doc.IssuedAt, doc.CI = 2, &previous, h.now(), []keyregistry.Person{{ID: "ci", Name: "ci", Keys: h.key("ci")}}
	doc.Retired = []keyregistry.RetiredKey{{Holder: "ci", KeyID: old}}
	if err := h.engine.AcceptRegistry(t.Context(), registrytest.Entry(&doc, h.keys["ann"], h.keys["bob"], h.keys["cleo"])); err != nil {
		t.Fatal(err)
	}
	h.until(p.UpgradeID, workflow.StatePaused)
	h.submit(workflow.KindTestResult, h.result(p.PatchHash, "unit test", "PASSED", 2))
	h.until(p.UpgradeID, workflow.StatePendingApproval)
}

// A quorum that waits for its apply is void under a new document.
func TestHouseRotationTakesAQuorumBack(t *testing.T) {
	h := newHouse(t)
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StateQuorumReached {
		t.Fatal(s)
	}
	h.rotate()
	h.run()
	v := h.until(p.UpgradeID, workflow.StatePendingApproval)
	if v.Quorum || h.depot.applied[p.UpgradeID] != 0 {
		t.Fatal("a void quorum was used")
	}
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateCompleted)
	h.checkAll()
}

// What the guard accepted before the gateway died is taken over at its start.
func TestHouseRegistryAndSuspensionHeal(t *testing.T) {
	h := newHouse(t)
	real := h.guard
	h.guard = dying{real}
	h.engine = h.newEngine()
	doc, entry := h.successor()
	if err := h.engine.AcceptRegistry(t.Context(), entry); err == nil {
		t.Fatal("it did not die")
	}
	h.guard = real
	h.restart()
	h.await(func() bool { return h.logged(auditlog.RegistryUpdated) == 2 })
	h.doc, h.reg = doc, envelope.DigestOf(entry.Document)
	if err := h.engine.AcceptRegistry(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.guard = dying{real}
	h.engine = h.newEngine()
	env := h.seal("ann", envelope.TypeKeySuspension, keyregistry.Suspension{IssuedBy: "ann", KernelID: "k1", KeyID: h.id("ann"), Reason: "lost",
		RegistryDigest: h.reg, SuspendedAt: h.now(), SuspendedKeyID: h.id("dan")})
	if err := h.engine.Suspend(t.Context(), env); err == nil {
		t.Fatal("it did not die")
	}
	h.guard = real
	h.restart()
	h.await(func() bool { return h.logged(auditlog.RegistryKeySuspended) == 1 })
	p := h.propose(h.draft(nil))
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(p, "dan", false))), failure.KeySuspended)
}

func (h *house) await(ok func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not come about")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// dying accepts, and then its caller is gone.
type dying struct{ workflow.Guard }

var errDied = errors.New("the gateway died here")

func (d dying) AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	return errors.Join(errDied, d.Guard.AcceptRegistry(ctx, entry))
}

func (d dying) Suspend(ctx context.Context, env envelope.Envelope) error {
	return errors.Join(errDied, d.Guard.Suspend(ctx, env))
}

func TestHouseSuspensionTakesEffectAtOnce(t *testing.T) {
	h := newHouse(t)
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	h.suspend("dan", "bob")
	h.clock.step(1)
	v := h.view(p.UpgradeID)
	if v.Quorum || v.Seats[3].Status != upgrade.SeatSuspended {
		t.Fatalf("quorum %v, %+v", v.Quorum, v.Seats[3])
	}
	h.run()
	h.until(p.UpgradeID, workflow.StatePendingApproval)
	wantClass(t, second(h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(p, "dan", false))), failure.KeySuspended)
	if n := h.logged(auditlog.RegistryKeySuspended); n != 1 {
		t.Fatalf("%d registry.key_suspended", n)
	}
	h.approve(p, "eve")
	h.until(p.UpgradeID, workflow.StateCompleted)
	h.verify(p.UpgradeID, upgrade.CaseQuorum)
	h.checkAll()
}

func TestHouseGuardAwayInTheMiddle(t *testing.T) {
	h := newHouse(t)
	h.run()
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo")
	h.stopGuard()
	h.approve(p, "dan")
	h.until(p.UpgradeID, workflow.StateApplying)
	time.Sleep(200 * time.Millisecond)
	if h.depot.applied[p.UpgradeID] != 0 {
		t.Fatal("applied without the guard")
	}
	h.openGuard()
	h.until(p.UpgradeID, workflow.StateCompleted)
	if n := h.count(p.UpgradeID, auditlog.UpgradeApplying); n != 1 {
		t.Fatalf("%d upgrade.applying", n)
	}
	h.checkAll()
}

// The guard was away for too long: it says time_invalid, and a new decision is made.
func TestHouseTimeInvalidDecidesAgain(t *testing.T) {
	h := newHouse(t)
	h.run()
	p := h.propose(h.draft(nil))
	h.stopGuard()
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateApplying)
	h.clock.step(1000)
	h.openGuard()
	h.until(p.UpgradeID, workflow.StateCompleted)
	if n := h.count(p.UpgradeID, auditlog.UpgradeApplying); n < 2 || h.count(p.UpgradeID, auditlog.GuardDenied) != n-1 {
		t.Fatalf("%d upgrade.applying, %d guard.denied", n, h.count(p.UpgradeID, auditlog.GuardDenied))
	}
	h.checkAll()
}

func TestHouseFailedDeployEnds(t *testing.T) {
	h := newHouse(t)
	h.run()
	h.depot.fault = func(workflow.Change) error { return errors.New("disk full at /var/lib") }
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateApplyFailed)
	h.depot.mu.Lock()
	h.depot.fault = nil
	h.depot.mu.Unlock()
	h.await(func() bool { return h.view(p.UpgradeID).Upgrade.NextAt == nil })
	h.through(h.draft(nil)) // trying again is a new upgrade, and the guard knows that nothing is live
	if h.view(p.UpgradeID).Upgrade.State != workflow.StateApplyFailed || h.depot.applied[p.UpgradeID] != 0 {
		t.Fatal("a failed record was deployed again")
	}
	h.checkAll()
}
