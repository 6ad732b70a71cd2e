package workflow_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// types are the events of an upgrade, in order, but for approval.submitted and
// what the guard was told.
func (h *house) types(id envelope.UUID) (out []string) {
	h.t.Helper()
	for _, ev := range h.view(id).Events {
		if ev.Event.Type != auditlog.ApprovalSubmitted {
			out = append(out, ev.Event.Type)
		}
	}
	return out
}

// event is the last of a type.
func (h *house) event(id envelope.UUID, kind string) auditlog.Event {
	h.t.Helper()
	for _, ev := range slices.Backward(h.view(id).Events) {
		if ev.Event.Type == kind {
			return ev.Event
		}
	}
	h.t.Fatalf("upgrade %s has no %s", id, kind)
	return auditlog.Event{}
}

func (h *house) wantTypes(id envelope.UUID, want ...string) {
	h.t.Helper()
	if got := h.types(id); !slices.Equal(got, want) {
		h.t.Fatalf("events\n got %q\nwant %q", got, want)
	}
}

// Every step of an upgrade has its event, in order; each that is about a record
// names that record, and the last names results, signatures and the log.
func TestHouseEveryStepHasItsEvent(t *testing.T) {
	h := newHouse(t)
	h.canary = &scale{result: workflow.CanaryResult{Passed: true, Report: []byte(`{"samples":9}`)}}
	h.engine = h.newEngine()
	p := h.tested(nil, "web")
	h.submit(workflow.KindTestResult, h.result(p.PatchHash, "unit test", "FAILED", 1))
	result := h.result(p.PatchHash, "unit test", "PASSED", 2)
	h.submit(workflow.KindTestResult, result)
	ask := h.seal("eve", envelope.TypeTestRequest, upgrade.TestRequest{ApproverID: "eve", KernelID: "k1", KeyID: h.id("eve"), ManifestDigest: p.digest,
		RegistryDigest: h.reg, RequestTs: h.now(), Tests: []string{"soak"}, UpgradeID: p.UpgradeID})
	h.submit(workflow.KindTestRequest, ask)
	h.reject(p, "eve")
	approvals := []string{}
	for _, who := range []string{"bob", "cleo", "dan"} {
		env := h.approval(p, who, false)
		h.submit(workflow.KindApproval, env)
		approvals = append(approvals, env.PayloadDigest().String())
	}
	if n := h.count(p.UpgradeID, auditlog.ApprovalSubmitted); n != 3 {
		t.Fatalf("%d approval.submitted", n)
	}
	h.run()
	h.until(p.UpgradeID, workflow.StateCompleted)
	h.wantTypes(p.UpgradeID, auditlog.UpgradeCreated, auditlog.UpgradePaused, auditlog.UpgradeTestsReported, auditlog.UpgradeTestsReported,
		auditlog.UpgradePendingApproval, auditlog.UpgradeTestsRequested, auditlog.ApprovalRejected, auditlog.UpgradeQuorumReached, auditlog.UpgradeApplying,
		auditlog.UpgradeApplied, auditlog.UpgradeCanaryPassed, auditlog.UpgradeCompleted)
	for kind, record := range map[string]envelope.Digest{auditlog.UpgradeCreated: p.digest, auditlog.UpgradeTestsReported: result.PayloadDigest(), auditlog.UpgradeTestsRequested: ask.PayloadDigest()} {
		if got := h.event(p.UpgradeID, kind).Data[auditlog.DataRecordDigest]; got != record.String() {
			t.Errorf("%s names %v, not %s", kind, got, record)
		}
	}
	v := h.view(p.UpgradeID)
	done := h.event(p.UpgradeID, auditlog.UpgradeCompleted)
	slices.Sort(approvals)
	signed, _ := done.Data["approvals"].([]string)
	slices.Sort(signed)
	tests, _ := done.Data["testResults"].([]string)
	if !slices.Equal(signed, approvals) || !slices.Equal(tests, []string{result.PayloadDigest().String()}) || done.Data["log"] != "kernelgate/k1" ||
		done.Data[auditlog.DataBundleDigest] != v.Upgrade.BundleDigest.String() || done.Data["canaryReport"] == nil {
		t.Errorf("upgrade.completed says %v", done.Data)
	}
	if file := h.verify(p.UpgradeID, upgrade.CaseQuorum); done.Data[auditlog.DataRecordDigest] != file.Record.String() {
		t.Errorf("upgrade.completed names the record %v, the bundle has %s", done.Data[auditlog.DataRecordDigest], file.Record)
	}
	h.checkAll()
}

// An emergency is loud in the log: of high priority, with its end, and the
// Kernel's signed record says that it was one.
func TestHouseEmergencyIsLoud(t *testing.T) {
	h := newHouse(t)
	h.run()
	base := h.through(h.draft(nil))
	p := h.propose(h.draft(base))
	h.submit(workflow.KindTrigger, h.triggerBy(p, "bob"))
	v := h.until(p.UpgradeID, workflow.StateEmergencyApplied)
	loud := h.event(p.UpgradeID, auditlog.UpgradeEmergencyApplied)
	if loud.Data["priority"] != "high" || loud.Data["ratifyBy"] != v.Upgrade.RatifyBy.String() {
		t.Errorf("%v", loud.Data)
	}
	if file := must2(t, func() ([]byte, error) { return h.engine.Bundle(t.Context(), p.UpgradeID) }); !emergencyOf(t, file) {
		t.Error("the AppliedUpgradeRecord does not say that it was an emergency")
	}
	if file := must2(t, func() ([]byte, error) { return h.engine.Bundle(t.Context(), base.UpgradeID) }); emergencyOf(t, file) {
		t.Error("an ordinary upgrade's record says that it was an emergency")
	}
	h.clock.step(window + 1)
	h.until(p.UpgradeID, workflow.StateRolledBack)
	if missed := h.event(p.UpgradeID, auditlog.UpgradeRatificationFailed); missed.Data["priority"] != "high" {
		t.Errorf("%v", missed.Data)
	}
	h.wantTypes(p.UpgradeID, auditlog.UpgradeCreated, auditlog.UpgradePendingApproval, auditlog.UpgradeApplying, auditlog.UpgradeApplied,
		auditlog.UpgradeEmergencyApplied, auditlog.UpgradeRatificationFailed, auditlog.UpgradeRollback)
	h.checkAll()
}

func emergencyOf(t *testing.T, file []byte) bool {
	t.Helper()
	f := new(upgrade.File)
	if err := json.Unmarshal(file, f); err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(f.AppliedRecord.Payload, []byte(`"emergency":true`))
}

// What the store has is hashed again before the apply: changed since it was
// approved, or gone, it is rejected with that reason, and nothing is applied.
func TestHouseArtifactIsHashedAgain(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"changed": func(file string) error {
			return errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("of somebody else"), 0o600))
		},
		"gone": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			p := h.propose(h.draft(nil))
			h.approve(p, "bob", "cleo", "dan")
			if err := spoil(h.artifactFile(p.PatchHash)); err != nil {
				t.Fatal(err)
			}
			h.run()
			h.until(p.UpgradeID, workflow.StateRejected)
			classes, _ := h.event(p.UpgradeID, auditlog.UpgradeRejected).Data["classes"].([]string)
			if !slices.Equal(classes, []string{string(failure.ArtifactMismatch)}) || h.depot.applied[p.UpgradeID] != 0 || h.count(p.UpgradeID, auditlog.UpgradeApplying) != 0 {
				t.Fatalf("classes %v, applied %d times", classes, h.depot.applied[p.UpgradeID])
			}
			h.checkAll()
		})
	}
}

// artifactFile is where an artifact's bytes are on disk.
func (h *house) artifactFile(digest envelope.Digest) string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "artifacts", "*", digest.Hex()[:2], digest.Hex()[2:]))
	if err != nil || len(files) != 1 {
		h.t.Fatalf("the files of %s: %q, %v", digest, files, err)
	}
	return files[0]
}
