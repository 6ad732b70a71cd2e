package workflow

import (
	"context"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// decide asks the policy about one case. An error of the policy is a denial
// with its reason. Its input is what the guard, which sees the bundle alone,
// gives the same policy: of the tests those that a bundle of the case carries.
func (e *Engine) decide(ctx context.Context, d *dossier, as upgrade.Case, spent []upgrade.Cost, now envelope.Time) *upgrade.PolicyDecision {
	if spent == nil {
		spent = []upgrade.Cost{}
	}
	in := upgrade.PolicyInput{Manifest: *d.manifest, Case: as, Now: now, Tests: []upgrade.TestSummary{}, Spent: spent}
	if as == upgrade.CaseQuorum {
		for _, name := range d.manifest.Preconditions.Tests {
			if t, ok := d.tests[name]; ok {
				in.Tests = append(in.Tests, upgrade.TestSummary{Name: name, Result: t.Result})
			}
		}
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

// stillAllows says that the newest decision would come out as it did: the policy
// is the same, was asked a moment ago and looks at its input alone, and no test
// was reported since. The policy is asked anew before anything is applied.
func (e *Engine) stillAllows(d *dossier, now envelope.Time) bool {
	if _, pure := e.Policy.(Pure); !pure || d.policy == nil || !d.policy.Allow || d.testedSeq > d.decidedSeq {
		return false
	}
	age := now.Sub(d.policy.EvaluatedAt)
	return d.policy.PolicyDigest == e.Policy.Digest() && d.policy.Engine == e.Policy.Engine() && age >= 0 && age <= upgrade.PolicyMaxAge
}

func reasons(p *upgrade.PolicyDecision) string {
	text := ""
	for _, v := range p.Violations {
		text += v.Rule + ": " + v.Message + "; "
	}
	return clip(text, 900)
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

// month is the calendar month that a time falls in, UTC.
func month(t envelope.Time) string { return t.String()[:len("2006-01")] }

// The log carries digests and short codes, never people's texts, paths or an
// error's words: those stand in the signed records and in the row's Reason.

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

// code is the data of an event that says why by a short code.
func code(c string) auditlog.Data { return auditlog.Data{"code": c} }

// classes are the failure classes of an error and of all that it joins.
func classes(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		out := []string{}
		for _, each := range joined.Unwrap() {
			out = append(out, classes(each)...)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return []string{string(failure.ClassOf(err))}
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
	return d.put(tx, now)
}

func (d *dossier) advanceOnce(tx Tx, now envelope.Time) error {
	if !d.byQuorum() {
		return nil // begin decides it, without people
	}
	count := d.tally(now)
	unmet, failed := d.unmet()
	switch {
	case count.Rejected:
		d.Reason = "three approvers rejected it"
		if err := d.move(tx, MoveReject, auditlog.UpgradeRejected, now, code("three_rejections")); err != nil {
			return err
		}
		return d.leave(tx, now)
	case now.After(d.ExpiresAt):
		return d.expire(tx, len(unmet), now)
	case d.State == StateDraft && failed, (d.State == StatePendingApproval || d.State == StateQuorumReached) && len(unmet) > 0:
		d.Reason = untested(unmet)
		return d.move(tx, MoveTestsFailed, auditlog.UpgradePaused, now, auditlog.Data{"unmetTests": int64(len(unmet))})
	case d.State == StatePaused && len(unmet) == 0:
		d.Reason = ""
		return d.move(tx, MoveReady, auditlog.UpgradePendingApproval, now, code("tests_passed"))
	case d.State == StatePendingApproval && count.Quorum && d.policy != nil && d.policy.Allow:
		d.Reason = ""
		return d.move(tx, MoveQuorum, auditlog.UpgradeQuorumReached, now, auditlog.Data{"approvers": texts(count.Approvers)})
	case d.State == StateQuorumReached && !count.Quorum:
		d.Reason = "the quorum does not stand any more; approvals that do not count must be given again"
		return d.move(tx, MoveQuorumLost, auditlog.UpgradePendingApproval, now, code("quorum_lost"))
	}
	return nil
}

func untested(names []string) string {
	return clip("required tests are missing or failed: "+strings.Join(names, ", "), 1000)
}

// expire ends an upgrade that nobody has added to for the TTL. Where three had
// agreed when the last record came, what is missing is the tests: that is the
// final check after the TTL, and the upgrade is rejected for them. (At this very
// moment the same approvals are too old to count, so it is that moment's quorum
// that is asked for.)
func (d *dossier) expire(tx Tx, unmet int, now envelope.Time) error {
	if unmet > 0 && d.tally(d.newest).Quorum {
		d.Reason = "the quorum stood, but required tests were still missing or failed when the time was over"
		return d.move(tx, MoveReject, auditlog.UpgradeRejected, now, auditlog.Data{"classes": []string{string(failure.TestsNotMet)}, "unmetTests": int64(unmet)})
	}
	d.Reason = "nobody added a record in time"
	return d.move(tx, MoveExpire, auditlog.UpgradeExpired, now, code("ttl"))
}

// byQuorum says that an upgrade needs three approvals of its own to be applied.
func (d *dossier) byQuorum() bool { return d.Case == "" || d.Case == upgrade.CaseQuorum }

// reaskSeconds is how often a policy that denies what a quorum wants is asked
// again: a time window may have opened.
const reaskSeconds = 300

// put writes the row, with the time when the engine looks at it again.
func (d *dossier) put(tx Tx, now envelope.Time) error {
	d.NextAt = d.plan(now)
	return tx.PutUpgrade(d.Upgrade)
}

// putAt writes the row with work due at a time.
func (d *dossier) putAt(tx Tx, at envelope.Time) error {
	d.NextAt = &at
	return tx.PutUpgrade(d.Upgrade)
}

// putIdle writes the row without work: somebody else has the next step.
func (d *dossier) putIdle(tx Tx) error {
	d.NextAt = nil
	return tx.PutUpgrade(d.Upgrade)
}

func (d *dossier) plan(now envelope.Time) *envelope.Time {
	switch d.State {
	case StateQuorumReached, StateApplying, StateApplied, StateValidating, StateApplyFailed, StateRollbackScheduled:
		return &now
	case StateEmergencyApplied:
		if d.RatifyBy != nil && !now.After(*d.RatifyBy) {
			at := d.RatifyBy.Add(1)
			return &at
		}
		return nil
	}
	if !open(d.State) {
		return nil
	}
	next := d.ExpiresAt.Add(1)
	sooner := func(t envelope.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, dec := range d.decisions {
		if !dec.Rejected {
			sooner(dec.SignedAt.Add(d.reg.Rules().ApprovalTTLSeconds + 1))
		}
	}
	if d.denied(now) {
		sooner(now.Add(reaskSeconds))
	}
	return &next
}

// denied says that only the policy keeps an upgrade from its quorum.
func (d *dossier) denied(now envelope.Time) bool {
	return d.State == StatePendingApproval && (d.policy == nil || !d.policy.Allow) && d.tally(now).Quorum
}

func texts(ids []envelope.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

// look takes up an open upgrade because time has passed or the registry changed.
func (e *Engine) look(ctx context.Context, id envelope.UUID) error {
	now := e.now()
	var decision *upgrade.PolicyDecision
	var d *dossier
	var spent []upgrade.Cost
	err := e.read(ctx, id, func(got *dossier, r Reader) (err error) {
		d = got
		spent, err = r.Spent(d.Target, month(now))
		return err
	})
	if err != nil {
		return err
	}
	if d.denied(now) {
		decision = e.decide(ctx, d, upgrade.CaseQuorum, spent, now)
	}
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if err := d.logStale(tx, now); err != nil {
			return err
		}
		if decision != nil && d.changes(decision) {
			if err := d.keepDecision(tx, decision, now); err != nil {
				return err
			}
		}
		return d.advance(tx, now)
	})
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
