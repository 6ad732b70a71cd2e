package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// sayIntent tells people in plain words what they are about to sign, from the
// verified manifest. files says what the artifact changes.
func (a *app) sayIntent(r *reading, files string) {
	m := r.manifest
	a.say("Upgrade %s", m.UpgradeID)
	for _, line := range [][2]string{
		{"Proposal", fmt.Sprintf("%s at %s, proposed by %s on %s (signature verified)", m.Type, m.Target.Name, m.ProposedBy, local(m.Timestamp))},
		{"Why", indented(m.Rationale)},
		{"Target", targetText(m)},
		{"Change", fmt.Sprintf("from %s\n             to %s", m.BaseRevision, m.PatchHash)},
		{"Files", files},
		{"Takes back", rollbackText(m)},
		{"Touches", touchesText(m)},
		{"Tests", testText(r)},
		{"Policy", policyText(r.policy)},
		{"Approvals", approvalText(r)},
		{"State", string(r.state())},
		{"Words", fingerprint(r.digest, m.PatchHash)},
	} {
		if line[1] != "" {
			a.say("  %-10s %s", line[0], line[1])
		}
	}
}

func targetText(m *upgrade.Manifest) string {
	if m.Target.ManifestID != "" {
		return indented(m.Target.ManifestID)
	}
	return fmt.Sprintf("%s of %s at commit %s", indented(m.Target.Path), indented(m.Target.Repository), m.Target.Commit)
}

func rollbackText(m *upgrade.Manifest) string {
	if m.Rollback == nil {
		return ""
	}
	return fmt.Sprintf("upgrade %s: %s", m.Rollback.UpgradeID, indented(m.Rollback.Reason))
}

func touchesText(m *upgrade.Manifest) string {
	return foreign(strings.Join(m.Impact.Components, ", ")) + "; downtime: " + foreign(m.Impact.Downtime) + costText(m)
}

func needsText(m *upgrade.Manifest) string {
	text := fmt.Sprintf("%d approvals", m.Preconditions.Approvals)
	if len(m.Preconditions.Tests) > 0 {
		text += " and the tests " + foreign(strings.Join(m.Preconditions.Tests, ", "))
	}
	return text
}

func costText(m *upgrade.Manifest) string {
	if m.Impact.Cost == nil {
		return ""
	}
	return fmt.Sprintf("; cost: %d minor units of %s", m.Impact.Cost.MinorUnits, m.Impact.Cost.Currency)
}

// testText is where the required tests stand, then others that were reported.
func testText(r *reading) string {
	var parts []string
	required := r.manifest.Preconditions.Tests
	for _, name := range required {
		result := "missing"
		if t, ok := r.tests[name]; ok {
			result = t.Result
		}
		parts = append(parts, foreign(name)+" "+result)
	}
	for name, t := range r.tests {
		if !slices.Contains(required, name) {
			parts = append(parts, foreign(name)+" "+t.Result+" (not required)")
		}
	}
	if len(parts) == 0 {
		return "none required"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func policyText(d *upgrade.PolicyDecision) string {
	if d == nil {
		return "not asked yet"
	}
	text := "DENIES"
	if d.Allow {
		text = "allows"
	}
	for _, v := range d.Violations {
		text += fmt.Sprintf("; %s: %s", foreign(v.Rule), foreign(v.Message))
	}
	return text
}

func approvalText(r *reading) string {
	names := make([]string, 0, len(r.count.Approvers))
	for _, id := range r.count.Approvers {
		names = append(names, string(id))
	}
	text := fmt.Sprintf("%d of %d", len(names), upgrade.Quorum)
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	for _, seat := range r.count.Seats {
		if seat.Status == upgrade.SeatRejected {
			text += fmt.Sprintf("; %s REJECTS", seat.Person)
		}
	}
	return text
}
