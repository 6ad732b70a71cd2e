package workflow

import (
	"context"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// measure takes the target's baseline before an apply, once. Emergencies and
// the Kernel's own rollbacks do not wait for one. Without a baseline a canary
// still judges by its limits, so a failure to measure stops nothing.
func (e *Engine) measure(ctx context.Context, d *dossier) error {
	if e.Canary == nil || d.baseline != nil || d.State != StateQuorumReached || !d.byQuorum() {
		return nil
	}
	report, err := e.Canary.Baseline(ctx, d.Target)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		e.Logger.WarnContext(ctx, "the target's baseline could not be measured", "upgrade", d.ID, "target", d.Target, "err", err)
		return nil
	}
	if report == nil {
		return nil
	}
	return e.change(ctx, d.ID, func(d *dossier, tx Tx) error {
		if d.baseline != nil {
			return nil
		}
		_, err := d.keepReport(tx, KindCanaryBaseline, true, report, e.now())
		return err
	})
}

// keepReport stores a canary's report under its upgrade.
func (d *dossier) keepReport(tx Tx, kind string, passed bool, report []byte, now envelope.Time) (*canaryRecord, error) {
	c := &canaryRecord{Kind: kind, Passed: passed, Report: jsontext.Value(report), UpgradeID: d.ID}
	if report == nil {
		c.Report = jsontext.Value("{}")
	}
	var err error
	c.digest, err = d.keepOwn(tx, kind, c, now)
	return c, err
}

// watch judges what is live. A canary that cannot say, because of an error, is
// asked again; one that is inconclusive has failed.
func (e *Engine) watch(ctx context.Context, id envelope.UUID) error {
	var d *dossier
	err := e.change(ctx, id, func(got *dossier, tx Tx) error {
		d = nil
		if got.State != StateValidating {
			return nil
		}
		if over, err := e.over(got, tx, e.now()); over || err != nil {
			return err
		}
		if got.report != nil {
			return got.putIdle(tx) // it failed and people have it
		}
		d = got
		return nil
	})
	if err != nil || d == nil {
		return err
	}
	result := CanaryResult{Passed: true}
	if e.Canary != nil {
		var baseline []byte
		if d.baseline != nil {
			baseline = d.baseline.Report
		}
		if result, err = e.Canary.Watch(ctx, d.Target, baseline); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err() // the window was cut short
		}
	}
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if d.State != StateValidating || d.report != nil {
			return nil // rolled back meanwhile, say
		}
		now := e.now()
		if over, err := e.over(d, tx, now); over || err != nil {
			return err
		}
		return d.judged(tx, result, now)
	})
}

// judged stores what the canary said and does what follows.
func (d *dossier) judged(tx Tx, result CanaryResult, now envelope.Time) (err error) {
	passed := result.Passed && !result.Inconclusive
	if passed && result.Report == nil {
		return d.complete(tx, "", "", now) // nothing is configured to watch this target
	}
	if d.report, err = d.keepReport(tx, KindCanaryReport, passed, result.Report, now); err != nil {
		return err
	}
	data := auditlog.Data{auditlog.DataRecordDigest: d.report.digest.String(), "codes": codes(result)}
	if passed {
		if err := d.log(tx, auditlog.UpgradeCanaryPassed, upgrade.KernelID, data); err != nil {
			return err
		}
		return d.complete(tx, "", "", now)
	}
	action, err := d.onCanaryFailure()
	if err != nil {
		return err
	}
	data["action"] = string(action)
	if action == upgrade.CanaryRollback {
		d.Reason = "the canary failed; the Kernel proposes a rollback"
		if err := d.move(tx, MoveScheduleRolling, auditlog.UpgradeCanaryFailed, now, data); err != nil {
			return err
		}
		return d.put(tx, now)
	}
	d.Reason = "the canary failed; people must act: propose a rollback, which three approve to take it back or reject to keep it, or a further upgrade"
	if d.manifest.BaseRevision == upgrade.None {
		d.Reason = "the canary failed, and there is nothing to go back to; people must act: propose a further upgrade"
	}
	d.UpdatedAt = now
	if err := d.log(tx, auditlog.UpgradeCanaryFailed, upgrade.KernelID, data); err != nil {
		return err
	}
	return d.putIdle(tx)
}

// onCanaryFailure is the policy's word, but where there is nothing to go back
// to, and for a rollback: to undo that would put back what was taken away.
func (d *dossier) onCanaryFailure() (upgrade.CanaryAction, error) {
	b, err := d.decided()
	if err != nil {
		return "", err
	}
	if b.PolicyDecision == nil || d.manifest.BaseRevision == upgrade.None || d.Type == upgrade.TypeRollback {
		return upgrade.CanaryEscalate, nil
	}
	return b.PolicyDecision.OnCanaryFailure, nil
}

var shortCode = regexp.MustCompile(`^[a-z0-9_.-]{1,40}$`)

// codes are a canary's short codes, for the log; what is none is left out.
func codes(result CanaryResult) []string {
	out := []string{}
	for _, c := range result.Codes {
		if shortCode.MatchString(c) && len(out) < 32 {
			out = append(out, c)
		}
	}
	if result.Inconclusive {
		out = append(out, "inconclusive")
	}
	return out
}
