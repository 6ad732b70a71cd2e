package workflow_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// An upgrade whose canary failed is never left hanging: three approve its
// rollback, three reject it and so keep what is live, or another takes its place.
func TestHouseCanaryFailedIsConcluded(t *testing.T) {
	for name, action := range map[string]upgrade.CanaryAction{"told to people": upgrade.CanaryEscalate, "the Kernel proposes": upgrade.CanaryRollback} {
		t.Run(name, func(t *testing.T) {
			h, s := newWatched(t)
			h.rules.set(upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: action})
			base := h.through(h.draft(nil))
			fail := func(on *proposal) (p, undo *proposal) {
				s.set(failing("p99"))
				p = h.propose(h.draft(on))
				h.approve(p, "bob", "cleo", "dan")
				if action == upgrade.CanaryRollback {
					v := h.view(h.rollbackOf(p.UpgradeID))
					return p, &proposal{v.Manifest, v.Upgrade.ManifestDigest}
				}
				h.await(func() bool { return h.view(p.UpgradeID).Next.Action == workflow.ActDecide })
				return p, h.propose(h.undo(p))
			}
			kept, undo := fail(base)
			h.reject(undo, "ann", "bob")
			if v := h.view(kept.UpgradeID); v.Upgrade.State == workflow.StateCompleted {
				t.Fatal("two kept it")
			}
			h.reject(undo, "eve")
			v := h.until(kept.UpgradeID, workflow.StateCompleted)
			done := h.event(kept.UpgradeID, auditlog.UpgradeCompleted).Data
			if done["code"] != "kept" || done["canaryReport"] != v.Canary.Report.String() || v.Canary.Passed || !strings.Contains(v.Upgrade.Reason, "three rejected") {
				t.Fatalf("%v, %q", done, v.Upgrade.Reason)
			}
			if h.depot.live["web"] != upgrade.RevisionOf(kept.PatchHash) || h.view(undo.UpgradeID).Upgrade.State != workflow.StateRejected {
				t.Fatal("what three kept is not live")
			}
			// The next fails too, and another takes its place.
			replaced, _ := fail(kept)
			s.set(workflow.CanaryResult{Passed: true})
			next := h.through(h.draft(replaced))
			h.until(replaced.UpgradeID, workflow.StateCompleted)
			if done := h.event(replaced.UpgradeID, auditlog.UpgradeCompleted).Data; done["code"] != "superseded" || done["canaryReport"] == nil {
				t.Fatalf("%v", done)
			}
			// And one is taken back.
			back, undo := fail(next)
			s.set(workflow.CanaryResult{Passed: true})
			h.approve(undo, "ann", "bob", "eve")
			h.until(back.UpgradeID, workflow.StateRolledBack)
			h.checkAll()
		})
	}
}

// A rollback that three reject while the canary still measures decides nothing:
// its word is waited for, and the Kernel proposes its own.
func TestHouseRejectedRollbackWhileTheCanaryMeasures(t *testing.T) {
	h, s := newWatched(t)
	base := h.through(h.draft(nil))
	gate := h.gated(s)
	s.set(failing("p99"))
	p := h.propose(h.draft(base))
	h.approve(p, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateValidating)
	undo := h.propose(h.undo(p))
	h.reject(undo, "ann", "bob", "eve")
	if s := h.view(p.UpgradeID).Upgrade; s.State != workflow.StateValidating || s.RollbackID != "" {
		t.Fatalf("%s, %s", s.State, s.RollbackID)
	}
	close(gate)
	if id := h.rollbackOf(p.UpgradeID); id == undo.UpgradeID {
		t.Fatal("the Kernel proposes no rollback of its own")
	}
	h.checkAll()
}

// Once three have ratified an emergency its canary watches it, as any upgrade
// that is to be complete; a failure then needs three to roll it back.
func TestHouseRatifiedEmergencyIsWatched(t *testing.T) {
	h, s := newWatched(t)
	base := h.through(h.draft(nil))
	s.set(failing("error_rate"))
	p := h.propose(h.draft(base))
	h.submit(workflow.KindTrigger, h.triggerBy(p, "ann"))
	h.until(p.UpgradeID, workflow.StateEmergencyApplied)
	h.approve(p, "ann", "bob", "eve")
	id := h.rollbackOf(p.UpgradeID)
	v := h.until(id, workflow.StatePendingApproval)
	h.clock.step(window + 1) // the window is past, and it was ratified: the Kernel does nothing alone
	if s := h.view(p.UpgradeID).Upgrade.State; s != workflow.StateRollbackScheduled || h.count(p.UpgradeID, auditlog.UpgradeCompleted) != 0 {
		t.Fatalf("%s after its canary failed", s)
	}
	s.set(workflow.CanaryResult{Passed: true})
	h.approve(&proposal{v.Manifest, v.Upgrade.ManifestDigest}, "bob", "cleo", "dan")
	h.until(p.UpgradeID, workflow.StateRolledBack)
	h.verify(id, upgrade.CaseQuorum)
	h.wantTypes(p.UpgradeID, auditlog.UpgradeCreated, auditlog.UpgradePendingApproval, auditlog.UpgradeApplying, auditlog.UpgradeApplied,
		auditlog.UpgradeEmergencyApplied, auditlog.UpgradeRatified, auditlog.UpgradeCanaryFailed, auditlog.UpgradeRollback)
	h.checkAll()
}

// meddling lets something happen before the guard is asked for a record.
type meddling struct {
	workflow.Guard
	before func()
}

func (m meddling) SignRecord(ctx context.Context, b upgrade.QuorumBundle, p workflow.LogProof) (envelope.Envelope, error) {
	m.before()
	return m.Guard.SignRecord(ctx, b, p)
}

// A new registry that comes into force between the decision and the guard's
// signature voids the decision: nothing is signed or applied, the upgrade is
// rejected and says what to do, and the target is free.
func TestHouseRotationWhileTheGuardIsAsked(t *testing.T) {
	h := newHouse(t)
	real, once := h.guard, sync.Once{}
	h.guard = meddling{real, func() { once.Do(h.rotate) }}
	h.engine = h.newEngine()
	h.run()
	p := h.propose(h.draft(nil))
	h.approve(p, "bob", "cleo", "dan")
	v := h.until(p.UpgradeID, workflow.StateRejected)
	classes, _ := h.event(p.UpgradeID, auditlog.UpgradeRejected).Data["classes"].([]string)
	if !slices.Equal(classes, []string{string(failure.BindingMismatch)}) || !strings.Contains(v.Upgrade.Reason, "propose it again") || h.depot.applied[p.UpgradeID] != 0 {
		t.Fatalf("%v, %q, applied %d times", classes, v.Upgrade.Reason, h.depot.applied[p.UpgradeID])
	}
	h.wantTypes(p.UpgradeID, auditlog.UpgradeCreated, auditlog.UpgradePendingApproval, auditlog.UpgradeQuorumReached, auditlog.UpgradeApplying,
		auditlog.GuardDenied, auditlog.UpgradeRejected)
	if _, err := h.engine.Bundle(t.Context(), p.UpgradeID); !errors.Is(err, workflow.ErrConflict) {
		t.Fatalf("it has a record: %v", err)
	}
	again := h.through(h.draft(nil))
	h.verify(again.UpgradeID, upgrade.CaseQuorum)
	h.checkAll()
}
