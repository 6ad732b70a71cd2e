package workflow

import (
	"context"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// decide asks the policy. An error of the policy is a denial with its reason.
func (e *Engine) decide(ctx context.Context, d *dossier, spent []upgrade.Cost, now envelope.Time) *upgrade.PolicyDecision {
	in := upgrade.PolicyInput{Manifest: *d.manifest, Case: upgrade.CaseQuorum, Now: now, Tests: []upgrade.TestSummary{}, Spent: spent}
	for name, t := range d.tests {
		in.Tests = append(in.Tests, upgrade.TestSummary{Name: name, Result: t.Result})
	}
	slices.SortFunc(in.Tests, func(a, b upgrade.TestSummary) int { return strings.Compare(a.Name, b.Name) })
	verdict, err := e.Policy.Evaluate(ctx, in)
	if err != nil {
		e.Logger.WarnContext(ctx, "the policy could not be asked, which denies", "upgrade", d.ID, "err", err)
		verdict = upgrade.PolicyVerdict{OnCanaryFailure: upgrade.CanaryEscalate,
			Violations: []upgrade.Violation{{Rule: "policy-unavailable", Message: clip(err.Error(), 1000)}}}
	}
	if verdict.Violations == nil {
		verdict.Violations = []upgrade.Violation{}
	}
	return &upgrade.PolicyDecision{
		Allow: verdict.Allow, Engine: e.Policy.Engine(), EvaluatedAt: now, KernelID: d.manifest.KernelID,
		ManifestDigest: d.ManifestDigest, OnCanaryFailure: verdict.OnCanaryFailure, PolicyDigest: e.Policy.Digest(),
		UpgradeID: d.ID, Violations: verdict.Violations,
	}
}

// clip makes any text Text(n).
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	runes := []rune(s)
	for i, r := range runes {
		if envelope.CheckText("text", string(r), 1) != nil {
			runes[i] = ' '
		}
	}
	if len(runes) == 0 {
		return "no reason given"
	}
	return string(runes[:min(n, len(runes))])
}

// spent is what was applied at the target in now's calendar month, UTC.
func (e *Engine) spent(r Reader, target envelope.ID, now envelope.Time) ([]upgrade.Cost, error) {
	sums := map[string]int64{}
	page := Page{Target: target, Limit: 100, States: []State{
		StateApplied, StateValidating, StateCompleted, StateEmergencyApplied, StateRollbackScheduled, StateRolledBack}}
	for {
		upgrades, next, err := r.Upgrades(page)
		if err != nil {
			return nil, err
		}
		for _, u := range upgrades {
			if err := e.addCost(r, u, now, sums); err != nil {
				return nil, err
			}
		}
		if next == "" {
			break
		}
		page.Cursor = next
	}
	costs := []upgrade.Cost{}
	for currency, sum := range sums {
		costs = append(costs, upgrade.Cost{Currency: currency, MinorUnits: sum})
	}
	slices.SortFunc(costs, func(a, b upgrade.Cost) int { return strings.Compare(a.Currency, b.Currency) })
	return costs, nil
}

func (e *Engine) addCost(r Reader, u Upgrade, now envelope.Time, sums map[string]int64) error {
	d, err := e.load(r, u.ID, now)
	if err != nil || d.bundle == nil || d.manifest.Impact.Cost == nil {
		return err
	}
	b, err := upgrade.ParseQuorumBundle(d.bundle)
	if err != nil {
		return err
	}
	at, month := b.Quorum.DecidedAt.Std(), now.Std()
	if at.Year() == month.Year() && at.Month() == month.Month() {
		c := d.manifest.Impact.Cost
		sums[c.Currency] = min(envelope.MaxInt, sums[c.Currency]+c.MinorUnits)
	}
	return nil
}

// move takes an upgrade one step of the table, with its event, in tx.
func (d *dossier) move(tx Tx, m Move, event string, now envelope.Time, data auditlog.Data) error {
	to, err := Next(d.State, m)
	if err != nil {
		return err
	}
	d.State, d.UpdatedAt = to, now
	if event == "" {
		return nil
	}
	return d.log(tx, event, upgrade.KernelID, data)
}

func (d *dossier) log(tx Tx, event string, actor envelope.ID, data auditlog.Data) error {
	_, err := tx.AppendEvent(EventDraft{Type: event, UpgradeID: d.ID, Actor: actor, Data: data})
	return err
}

// advance moves an open upgrade as far as its records carry it.
func (d *dossier) advance(tx Tx, now envelope.Time) error {
	for open(d.State) {
		before := d.State
		if err := d.advanceOnce(tx, now); err != nil {
			return err
		}
		if d.State == before {
			break
		}
	}
	return tx.PutUpgrade(d.plan(now))
}

func (d *dossier) advanceOnce(tx Tx, now envelope.Time) error {
	count := d.tally(now)
	unmet, failed := d.unmet()
	switch {
	case count.Rejected:
		d.Reason = "three approvers rejected it"
		return d.move(tx, MoveReject, auditlog.UpgradeRejected, now, auditlog.Data{"reason": d.Reason})
	case now.After(d.ExpiresAt):
		d.Reason = "nobody added a record in time"
		return d.move(tx, MoveExpire, auditlog.UpgradeExpired, now, auditlog.Data{"reason": d.Reason})
	case d.State == StateDraft && failed, (d.State == StatePendingApproval || d.State == StateQuorumReached) && len(unmet) > 0:
		d.Reason = "required tests are missing or failed"
		return d.move(tx, MoveTestsFailed, auditlog.UpgradePaused, now, auditlog.Data{"tests": unmet})
	case d.State == StatePaused && len(unmet) == 0:
		d.Reason = ""
		return d.move(tx, MoveReady, auditlog.UpgradePendingApproval, now, nil)
	case d.State == StatePendingApproval && count.Quorum && d.policy != nil && d.policy.Allow:
		return d.move(tx, MoveQuorum, auditlog.UpgradeQuorumReached, now, auditlog.Data{"approvers": texts(count.Approvers)})
	case d.State == StateQuorumReached && !count.Quorum:
		return d.move(tx, MoveQuorumLost, auditlog.UpgradePendingApproval, now, auditlog.Data{"reason": "the quorum does not stand any more"})
	}
	return nil
}

// plan sets when the engine looks at an upgrade again.
func (d *dossier) plan(now envelope.Time) Upgrade {
	d.NextAt = nil
	switch {
	case d.State == StateQuorumReached || d.State == StateApplying || d.State == StateApplied || d.State == StateApplyFailed:
		d.NextAt = &now
	case open(d.State):
		next := d.ExpiresAt.Add(1)
		ttl := d.reg.Rules().ApprovalTTLSeconds
		for _, dec := range d.decisions {
			if end := dec.SignedAt.Add(ttl + 1); !dec.Rejected && end.After(now) && end.Before(next) {
				next = end
			}
		}
		d.NextAt = &next
	}
	return d.Upgrade
}

func texts(ids []envelope.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

// logStale logs, once each, approvals that are too old to count.
func (d *dossier) logStale(tx Tx, now envelope.Time) error {
	events, err := tx.UpgradeEvents(d.ID)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, ev := range events {
		if ev.Event.Type == auditlog.ApprovalStale {
			known[ev.Event.Data.Text(auditlog.DataRecordDigest)] = true
		}
	}
	for _, dec := range d.decisions {
		digest := dec.Envelope.PayloadDigest().String()
		if dec.Rejected || known[digest] || now.Sub(dec.SignedAt) <= d.reg.Rules().ApprovalTTLSeconds {
			continue
		}
		if err := d.log(tx, auditlog.ApprovalStale, dec.Person, auditlog.Data{auditlog.DataRecordDigest: digest}); err != nil {
			return err
		}
	}
	return nil
}
