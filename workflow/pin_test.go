package workflow_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// spy keeps what a policy was asked, and may lie about its answer.
type spy struct {
	workflow.Policy
	mu    sync.Mutex
	asked []upgrade.PolicyInput
	lies  bool
}

func (s *spy) Evaluate(ctx context.Context, in upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, in)
	v, err := s.Policy.Evaluate(ctx, in)
	v.Allow = v.Allow || s.lies
	return v, err
}

func (s *spy) last(t *testing.T) upgrade.PolicyInput {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		t.Fatal("the policy was not asked")
	}
	return s.asked[len(s.asked)-1]
}

// sentinelnet is the policy that comes along, with settings of the test's.
func sentinelnet(t *testing.T, data string) *policy.Embedded {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("policy/sentinelnet")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.json"), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return must2(t, func() (*policy.Embedded, error) { return policy.LoadDir(dir) })
}

// withCost is a manifest that costs euros, in cents.
func (h *house) withCost(on *proposal, cents int64) upgrade.Manifest {
	m := h.draft(on)
	m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: cents}
	return m
}

// Engine and guard give a pinned policy with a budget the same input, and the
// guard's own answer counts.
func TestHousePinnedBudget(t *testing.T) {
	rules := sentinelnet(t, `{"sentinelnet": {"blocked": [], "tests": [], "onCanaryFailure": {"default": "rollback", "targets": {}},
		"budgets": [{"name": "web", "target": "web", "currency": "EUR", "limitMinorUnits": 10000}]}}`)
	h := newHouse(t, rules)
	asked, judged := &spy{Policy: rules}, &spy{Policy: rules}
	h.policy, h.pinned = asked, judged
	h.stopGuard()
	h.openGuard()
	h.engine = h.newEngine()
	if err := h.engine.CheckPolicy(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.run()
	first := h.through(h.withCost(nil, 6000))
	m := h.withCost(first, 3000)
	m.Preconditions.Tests = []string{"unit", "e2e"}
	second := h.propose(m)
	for i, name := range []string{"unit", "e2e", "not asked for"} {
		h.submit(workflow.KindTestResult, h.result(m.PatchHash, name, "PASSED", i))
	}
	h.approve(second, "bob", "cleo", "dan")
	h.until(second.UpgradeID, workflow.StateCompleted)
	in := judged.last(t)
	if want := asked.last(t); !reflect.DeepEqual(in, want) {
		t.Errorf("the guard asked\n%+v\nand the engine\n%+v", in, want)
	}
	if !slices.Equal(in.Spent, []upgrade.Cost{{Currency: "EUR", MinorUnits: 6000}}) ||
		!slices.Equal(in.Tests, []upgrade.TestSummary{{Name: "e2e", Result: "PASSED"}, {Name: "unit", Result: "PASSED"}}) {
		t.Errorf("asked with %+v, %+v", in.Spent, in.Tests)
	}
	for _, ev := range h.view(second.UpgradeID).Events {
		if spent, _ := ev.Event.Data[auditlog.DataSpent].([]string); ev.Event.Type == auditlog.UpgradeApplying && !slices.Equal(spent, []string{"EUR=6000"}) {
			t.Errorf("upgrade.applying says %v", ev.Event.Data)
		}
	}
	// Over the budget: approvals are refused, and where the gateway lies the guard denies.
	third := h.propose(h.withCost(second, 1001))
	if _, err := h.engine.Submit(t.Context(), workflow.KindApproval, h.approval(third, "bob", false)); failure.ClassOf(err) != failure.PolicyDenied {
		t.Errorf("over the budget: %v", err)
	}
	asked.mu.Lock()
	asked.lies = true
	asked.mu.Unlock()
	h.approve(third, "bob", "cleo", "dan")
	h.until(third.UpgradeID, workflow.StateRejected)
	if h.count(third.UpgradeID, auditlog.GuardDenied) != 1 {
		t.Error("it was not the guard who denied")
	}
	h.checkAll()
}

// opaque is a policy of a server's.
type opaque struct{ workflow.Policy }

func (opaque) Opaque() {}

// A pinned policy and one that nobody here can see exclude each other.
func TestHousePinExcludesServer(t *testing.T) {
	h := newHouse(t)
	h.policy = opaque{h.rules}
	h.engine = h.newEngine()
	h.run()
	if err := h.engine.CheckPolicy(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.clock.step(1)
	doc, _ := h.successor()
	pin := envelope.DigestOf([]byte("p"))
	doc.Rules.PolicyDigest = &pin
	entry := registrytest.Entry(&doc, h.keys["ann"], h.keys["bob"], h.keys["cleo"], h.keys["eve"])
	if err := h.engine.AcceptRegistry(t.Context(), entry); failure.ClassOf(err) != failure.PolicyDenied {
		t.Errorf("a pin under a server's policy: %v", err)
	}
	pinned := newHouse(t, &rules{})
	pinned.policy = opaque{pinned.rules}
	if err := pinned.newEngine().CheckPolicy(t.Context()); failure.ClassOf(err) != failure.PolicyDenied {
		t.Errorf("a server's policy under a pin: %v", err)
	}
}
