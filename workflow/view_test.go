package workflow_test

import (
	"testing"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// What was decided is shown as it was decided, however long ago.
func TestSeatsStayAsTheyWereDecided(t *testing.T) {
	h := newHouse(t)
	h.run()
	p := h.through(h.draft(nil))
	h.clock.step(60 * 86400)
	v := h.view(p.UpgradeID)
	approved := 0
	for _, seat := range v.Seats {
		if seat.Status == upgrade.SeatApproved {
			approved++
		}
	}
	if approved != 3 || !v.Quorum {
		t.Fatalf("after two months %d approvals are shown, quorum %t: %+v", approved, v.Quorum, v.Seats)
	}
	if v.Upgrade.Intent == "" || v.Upgrade.Intent != v.Manifest.Rationale {
		t.Fatalf("its intent is %q", v.Upgrade.Intent)
	}
}

func TestPreviewStoresNothing(t *testing.T) {
	h := newHouse(t)
	h.run()
	m := h.draft(nil)
	m.Impact.Cost = &upgrade.Cost{Currency: "EUR", MinorUnits: 700}
	h.through(m)
	h.rules.set(upgrade.PolicyVerdict{Violations: []upgrade.Violation{{Rule: "no", Message: "Not today."}}, OnCanaryFailure: upgrade.CanaryEscalate})
	next := h.draft(nil)
	d, err := h.engine.Preview(t.Context(), next)
	if err != nil || d.Allow || len(d.Violations) != 1 || d.Violations[0].Rule != "no" {
		t.Fatalf("%+v, %v", d, err)
	}
	if in := h.rules.asked[len(h.rules.asked)-1]; in.Case != upgrade.CaseQuorum || len(in.Spent) != 1 || in.Manifest.UpgradeID != next.UpgradeID {
		t.Fatalf("the policy was asked about %+v", in)
	}
	if _, err := h.engine.Upgrade(t.Context(), next.UpgradeID); err == nil {
		t.Fatal("a preview became an upgrade")
	}
	reg, err := h.engine.Registry(t.Context())
	if err != nil || reg.Digest() != h.reg {
		t.Fatal(err)
	}
}
