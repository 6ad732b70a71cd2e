package workflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// apply gets the record signed, then deploys, then asks what is live.
func (e *Engine) apply(ctx context.Context, id envelope.UUID) error {
	var d *dossier
	if err := e.read(ctx, id, func(got *dossier, _ Reader) error { d = got; return nil }); err != nil {
		return err
	}
	if d.State != StateApplying {
		return nil
	}
	if d.record == nil {
		if signed, err := e.sign(ctx, d); err != nil || !signed {
			return err
		}
	}
	change := Change{UpgradeID: id, Target: d.manifest.Target, Base: d.manifest.BaseRevision, Patch: d.manifest.PatchHash, Record: d.record.Bytes(),
		Artifact: func(ctx context.Context) (io.ReadCloser, error) {
			r, _, err := e.Artifacts.Open(ctx, d.manifest.PatchHash)
			return r, err
		}}
	applyErr := e.Deployer.Apply(ctx, change)
	if ctx.Err() != nil {
		return ctx.Err() // taken up again by the next run, which asks what is live
	}
	live, err := e.Deployer.Live(ctx, d.Target)
	if err != nil {
		return errors.Join(applyErr, fmt.Errorf("what is live at %s is not known: %w", d.Target, err))
	}
	return e.settle(ctx, id, live, applyErr)
}

// sign asks the guard, and keeps what it says. False: no record, and no error
// that another try would mend.
func (e *Engine) sign(ctx context.Context, d *dossier) (bool, error) {
	bundle, err := d.decided()
	if err != nil {
		return false, err
	}
	proof, err := e.prove(ctx, d.ID, auditlog.UpgradeApplying, d.BundleDigest)
	if err != nil {
		return false, err
	}
	if e.Witnesses != nil && e.AwaitWitnesses {
		if err := e.cosign(ctx); err != nil {
			return false, err
		}
	}
	var env envelope.Envelope
	err = e.ask(ctx, func(ctx context.Context) (err error) {
		env, err = e.Guard.SignRecord(ctx, *bundle, proof)
		return err
	})
	if failure.ClassOf(err) != "" {
		return false, e.denied(ctx, d, err)
	} else if err != nil {
		return false, err
	}
	kind, err := bundle.Case()
	if err != nil {
		return false, err
	}
	d.record = &env
	return true, e.update(ctx, func(tx Tx) error {
		now := e.now()
		added, err := tx.AddRecord(Record{Digest: env.PayloadDigest(), UpgradeID: d.ID, Kind: KindAppliedRecord, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: env.Bytes()})
		if err != nil || !added {
			return err
		}
		return d.countEmergency(tx, kind)
	})
}

// countEmergency notes an emergency that was signed at the target, and that a
// record with a quorum ends the wait for all of them.
func (d *dossier) countEmergency(tx Tx, kind upgrade.Case) error {
	t, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	switch kind {
	case upgrade.CaseEmergency:
		t.Emergencies = append(slices.Clone(t.Emergencies), d.ID)
	case upgrade.CaseQuorum:
		t.Emergencies = nil
	}
	return tx.PutTarget(t)
}

// closeEmergency notes that an emergency awaits no ratification any more.
func (t *Target) closeEmergency(id envelope.UUID) {
	t.Emergencies = slices.DeleteFunc(slices.Clone(t.Emergencies), func(o envelope.UUID) bool { return o == id })
}

// denied is what follows a refusal of the guard. time_invalid means that
// nothing was signed and a new decision may be; anything else rejects. The
// Kernel's own rollbacks are not lost by it: see refused.
func (e *Engine) denied(ctx context.Context, asked *dossier, cause error) error {
	return e.change(ctx, asked.ID, func(d *dossier, tx Tx) error {
		if d.State != StateApplying || d.record != nil || d.BundleDigest != asked.BundleDigest {
			return nil
		}
		now := e.now()
		wait, err := d.logRefusal(tx, cause)
		if err != nil {
			return err
		}
		if err := d.freeTarget(tx, nil); err != nil {
			return err
		}
		class := failure.ClassOf(cause)
		again := class == failure.TimeInvalid || d.Case == upgrade.CaseAutomatic && class != failure.BaseRevisionMoved
		if !again && d.Case != upgrade.CasePreapproved {
			return d.reject(tx, cause, now)
		}
		if err := d.move(tx, MoveRetake, "", now, nil); err != nil {
			return err
		}
		if !again {
			return d.backToPeople(tx, cause, now)
		}
		d.Reason = clip(cause.Error(), 1000)
		return d.putAt(tx, now.Add(wait))
	})
}

func (d *dossier) freeTarget(tx Tx, live func(*Target)) error {
	t, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	t.Name = d.Target
	if t.Applying == d.ID {
		t.Applying = ""
	}
	if live != nil {
		live(&t)
	}
	return tx.PutTarget(t)
}

// settle writes down what the target said after a deploy.
func (e *Engine) settle(ctx context.Context, id envelope.UUID, live upgrade.Revision, applyErr error) error {
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if d.State != StateApplying {
			return nil
		}
		now := e.now()
		data := auditlog.Data{auditlog.DataRecordDigest: d.record.PayloadDigest().String(), auditlog.DataBundleDigest: d.BundleDigest.String()}
		if live != upgrade.RevisionOf(d.manifest.PatchHash) {
			return e.failed(d, tx, data, fmt.Sprintf("%s is live after the deploy: %v", live, applyErr), now)
		}
		var before envelope.UUID
		if err := d.freeTarget(tx, func(t *Target) { before, t.Live, t.LiveUpgrade = t.LiveUpgrade, live, d.ID }); err != nil {
			return err
		}
		if err := d.spend(tx); err != nil {
			return err
		}
		if err := e.live(d, tx, data, now); err != nil {
			return err
		}
		if d.Type == upgrade.TypeRollback {
			if err := e.takeBack(tx, d, now); err != nil {
				return err
			}
		}
		if err := wake(tx, before, now); err != nil {
			return err
		}
		return d.putAt(tx, now)
	})
}

func (e *Engine) live(d *dossier, tx Tx, data auditlog.Data, now envelope.Time) error {
	if d.Case != upgrade.CaseEmergency {
		return d.move(tx, MoveApplied, auditlog.UpgradeApplied, now, data)
	}
	// The guard is told of upgrade.applied, as for any apply; the other event
	// is for people.
	if err := d.log(tx, auditlog.UpgradeApplied, upgrade.KernelID, data); err != nil {
		return err
	}
	d.Reason = "an emergency, applied without a quorum; it is rolled back unless three ratify it by " + d.RatifyBy.String()
	if d.Type == upgrade.TypeRollback {
		d.Reason = "an emergency rollback, applied without a quorum; three are to ratify it by " + d.RatifyBy.String()
	}
	return d.move(tx, MoveEmergencyLive, auditlog.UpgradeEmergencyApplied, now, auditlog.Data{
		auditlog.DataRecordDigest: d.record.PayloadDigest().String(), "priority": "high", "ratifyBy": d.RatifyBy.String()})
}

// failed ends an upgrade whose deploy failed. Its record is never deployed
// again: trying again is a new upgrade.
func (e *Engine) failed(d *dossier, tx Tx, data auditlog.Data, reason string, now envelope.Time) error {
	d.Reason = clip(reason, 1000)
	data["code"] = "not_live"
	if err := d.freeTarget(tx, func(*Target) {}); err != nil {
		return err
	}
	if err := d.move(tx, MoveApplyFailed, auditlog.UpgradeApplyFailed, now, data); err != nil {
		return err
	}
	if d.manifest.ProposedBy == upgrade.KernelID {
		u, err := e.load(tx, d.manifest.Rollback.UpgradeID, now)
		if err != nil {
			return err
		}
		u.Reason = clip("the Kernel's rollback "+string(d.ID)+" could not be deployed; people must act", 1000)
		if err := u.putIdle(tx); err != nil {
			return err
		}
	}
	return d.put(tx, now)
}

// spend adds an upgrade's cost to its target's month, that of the decision, as
// the guard counts it.
func (d *dossier) spend(tx Tx) error {
	cost := d.manifest.Impact.Cost
	if cost == nil {
		return nil
	}
	b, err := d.decided()
	if err != nil {
		return err
	}
	return tx.AddSpent(d.Target, month(b.Quorum.DecidedAt), *cost)
}

// takeBack marks the upgrade that a rollback took back.
func (e *Engine) takeBack(tx Tx, rollback *dossier, now envelope.Time) error {
	u, err := e.load(tx, rollback.manifest.Rollback.UpgradeID, now)
	if err != nil {
		return err
	}
	u.Reason = clip("rolled back: "+rollback.manifest.Rollback.Reason, 1000)
	if err := u.move(tx, MoveRolledBack, auditlog.UpgradeRollback, now, auditlog.Data{
		"rollbackUpgradeId": string(rollback.ID), "case": string(rollback.decidedAs())}); err != nil {
		return err
	}
	return u.putIdle(tx)
}

// confirm tells the guard that an upgrade is live, then watches or completes it.
func (e *Engine) confirm(ctx context.Context, id envelope.UUID) error {
	if err := e.report(ctx, id, auditlog.UpgradeApplied); err != nil {
		return err
	}
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if d.State != StateApplied {
			return nil
		}
		now := e.now()
		if e.Canary == nil {
			return d.complete(tx, "", "", now)
		}
		if err := d.move(tx, MoveValidate, "", now, nil); err != nil {
			return err
		}
		return d.put(tx, now)
	})
}

// complete ends an upgrade well; the event names results, signatures and where
// the log is. Where it did not end by itself, code and why say how.
func (d *dossier) complete(tx Tx, code, why string, now envelope.Time) error {
	bundle, err := d.decided()
	if err != nil {
		return err
	}
	data := auditlog.Data{
		auditlog.DataRecordDigest: d.record.PayloadDigest().String(), auditlog.DataBundleDigest: d.BundleDigest.String(),
		"approvers": texts(bundle.Quorum.Approvers), "approvals": digests(bundle.Approvals), "testResults": digests(bundle.TestResults),
		"log": auditlog.Origin(d.manifest.KernelID)}
	if d.report != nil {
		data["canaryReport"] = d.report.digest.String()
	}
	if d.ratification != nil {
		ratified, err := upgrade.ParseQuorumBundle(d.ratifying)
		if err != nil {
			return err
		}
		data["ratification"] = d.ratification.PayloadDigest().String()
		data["approvers"], data["approvals"] = texts(ratified.Quorum.Approvers), digests(ratified.Approvals)
	}
	if code != "" {
		data["code"] = code
	}
	d.Reason = why
	if err := d.move(tx, MoveComplete, auditlog.UpgradeCompleted, now, data); err != nil {
		return err
	}
	return d.put(tx, now)
}

func digests(envs []envelope.Envelope) []string {
	out := make([]string, len(envs))
	for i, env := range envs {
		out[i] = env.PayloadDigest().String()
	}
	return out
}
