package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// incident is the report of one emergency: people's words from what they
// signed, the rest from the bundle, which verifies, and the signed events.
type incident struct {
	UpgradeID   envelope.UUID             `json:"upgradeId"`
	State       string                    `json:"state"`
	Who         envelope.ID               `json:"triggeredBy"`
	Role        string                    `json:"role"`
	Why         string                    `json:"reason"`
	TriggeredAt envelope.Time             `json:"triggeredAt"`
	What        *upgrade.Manifest         `json:"manifest"`
	AppliedBy   envelope.Digest           `json:"appliedRecord"`
	RatifyBy    *envelope.Time            `json:"ratifyBy,omitzero"`
	RatifiedBy  []envelope.ID             `json:"ratifiedBy,omitzero"`
	RatifiedAt  *envelope.Time            `json:"ratifiedAt,omitzero"`
	Policy      []*upgrade.PolicyDecision `json:"policy"`
	Tests       []testVerdict             `json:"tests"`
	Approvals   []shownSeat               `json:"approvals"`
	Timeline    []auditlog.Event          `json:"timeline"`
}

type testVerdict struct {
	Name       string `json:"name"`
	Result     string `json:"result"`
	ReceivedAt string `json:"receivedAt"`
}

func (a *app) emergencyReport() *cobra.Command {
	return &cobra.Command{
		Use: "report ID", Short: "Account for an emergency: who, why, what, when, and what others said", Args: oneUpgrade,
		Long: `Account for an emergency: who broke the glass, why, what it changed, when, what policy and tests said, and who
ratified it. Signed words are verified from the pinned root, and the case is the bundle's, which verifies. The times of
receipt, the policy's words and the list of events are the gateway's; kgctl audit verify holds it to its log.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			report, err := a.incident(cmd.Context(), s, envelope.UUID(args[0]))
			if err != nil {
				return err
			}
			return a.showIncident(report)
		},
	}
}

func (a *app) incident(ctx context.Context, s *session, id envelope.UUID) (*incident, error) {
	r, err := a.look(ctx, s, id)
	if err != nil {
		return nil, err
	}
	v, _, err := a.bundle(ctx, s, id)
	if err != nil {
		return nil, err
	}
	if v.Case != upgrade.CaseEmergency {
		return nil, fmt.Errorf("upgrade %s was no emergency: the bundle is of the case %s", id, v.Case)
	}
	out := &incident{UpgradeID: id, State: string(r.state()), What: v.Manifest, AppliedBy: v.Record, RatifyBy: v.RatifyBy, Policy: []*upgrade.PolicyDecision{}, Tests: []testVerdict{}}
	if v.Ratification != nil {
		out.RatifiedBy, out.RatifiedAt = v.Ratification.Approvers, &v.Ratification.DecidedAt
	}
	if err := out.addRecords(r, v); err != nil {
		return nil, err
	}
	for _, seat := range r.count.Seats {
		shown := shownSeat{Person: seat.Person, Status: seat.Status, KeyID: seat.KeyID, Reason: seat.Reason}
		if seat.Status != upgrade.SeatWaiting {
			shown.SignedAt = &seat.SignedAt
		}
		out.Approvals = append(out.Approvals, shown)
	}
	events, err := s.UpgradeEvents(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		event, _, err := auditlog.ParseLeaf(e.Leaf)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Seq, err)
		}
		if event.UpgradeID != id || event.KernelID != v.Manifest.KernelID {
			return nil, failure.New(failure.BindingMismatch, "the gateway shows event %d, of another upgrade", event.Seq)
		}
		out.Timeline = append(out.Timeline, event)
	}
	return out, nil
}

// addRecords takes in the trigger, which must be the one that the decision
// rested on, and every policy and test verdict in order of receipt.
func (i *incident) addRecords(r *reading, v *upgrade.FileVerdict) error {
	for _, rec := range r.detail.Records {
		switch rec.Kind {
		case workflow.KindTrigger:
			if err := i.addTrigger(r, v, rec); err != nil {
				return err
			}
		case workflow.KindPolicyDecision:
			d := new(upgrade.PolicyDecision)
			if err := envelope.DecodeCanonical(rec.Body, envelope.MaxWire, d); err != nil {
				return fmt.Errorf("a policy decision: %w", err)
			}
			if d.ManifestDigest == v.ManifestDigest {
				i.Policy = append(i.Policy, d)
			}
		case workflow.KindTestResult:
			env, err := envelope.Parse(rec.Body)
			if err != nil {
				return err
			}
			if t, err := upgrade.VerifyTestResult(v.Registry, env, r.manifest.PatchHash, v.DecidedAt); err == nil {
				i.Tests = append(i.Tests, testVerdict{t.Name, t.Result, rec.ReceivedAt})
			}
		}
	}
	if i.Who == "" {
		return errors.New("the gateway shows no emergency trigger that verifies")
	}
	return nil
}

func (i *incident) addTrigger(r *reading, v *upgrade.FileVerdict, rec client.Record) error {
	env, err := envelope.Parse(rec.Body)
	if err != nil {
		return err
	}
	t, err := upgrade.VerifyTrigger(v.Registry, v.Manifest, v.ManifestDigest, env, v.DecidedAt)
	if err != nil {
		return nil //nolint:nilerr // an earlier attempt that was not acted on
	}
	if t.UpgradeID != r.manifest.UpgradeID {
		return failure.New(failure.BindingMismatch, "the trigger is of another upgrade")
	}
	i.Who, i.Why, i.TriggeredAt = t.TriggeredBy, t.Reason, t.TriggeredAt
	if p, ok := v.Registry.Approver(t.TriggeredBy); ok {
		i.Role = string(p.Role)
	}
	return nil
}

func (a *app) showIncident(i *incident) error {
	m := i.What
	ratified := "NOT ratified"
	switch {
	case i.RatifiedAt != nil:
		ratified = fmt.Sprintf("by %v on %s", i.RatifiedBy, local(*i.RatifiedAt))
	case i.RatifyBy != nil:
		ratified += ", due by " + local(*i.RatifyBy)
	}
	rows := [][]string{
		{"upgrade", string(i.UpgradeID)}, {"state", foreign(i.State)}, {"who", fmt.Sprintf("%s (%s)", i.Who, i.Role)}, {"why", foreign(i.Why)},
		{"what", fmt.Sprintf("%s at %s: %s", m.Type, m.Target.Name, foreign(m.Rationale))}, {"change", fmt.Sprintf("%s to %s", m.BaseRevision, m.PatchHash)},
		{"proposed by", string(m.ProposedBy)}, {"triggered", local(i.TriggeredAt)}, {"record", i.AppliedBy.String()}, {"ratified", ratified},
	}
	for _, d := range i.Policy {
		rows = append(rows, []string{"policy", local(d.EvaluatedAt) + " " + policyText(d)})
	}
	for _, t := range i.Tests {
		rows = append(rows, []string{"test", fmt.Sprintf("%s %s %s", localText(t.ReceivedAt), foreign(t.Name), t.Result)})
	}
	for _, seat := range i.Approvals {
		text := string(seat.Person) + " " + string(seat.Status)
		if seat.SignedAt != nil {
			text += " on " + local(*seat.SignedAt)
		}
		rows = append(rows, []string{"approver", text})
	}
	slices.SortStableFunc(i.Timeline, func(x, y auditlog.Event) int { return cmp.Compare(x.Seq, y.Seq) })
	for _, e := range i.Timeline {
		rows = append(rows, []string{"event", fmt.Sprintf("%s %s by %s", local(e.Time), e.Type, e.Actor)})
	}
	return a.show(i, rows)
}
