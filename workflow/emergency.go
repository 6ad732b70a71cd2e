package workflow

import (
	"context"
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// submitTrigger breaks the glass: where everything that is never waived holds,
// the upgrade is applied at once. Otherwise nothing changes and the caller is
// told why; the same trigger may be sent again.
func (e *Engine) submitTrigger(ctx context.Context, env envelope.Envelope) (Result, error) {
	now := e.now()
	var d *dossier
	var spent []upgrade.Cost
	err := e.Store.View(ctx, func(r Reader) error {
		id, err := subjectOf(env)
		if err != nil {
			return err
		}
		if d, err = e.load(r, id, now); err != nil {
			return err
		}
		if err := d.acceptsTrigger(env, now); err != nil {
			return err
		}
		target, err := r.Target(d.Target)
		if err != nil {
			return err
		}
		if err := e.mayBreakGlass(r, d, target, now); err != nil {
			return err
		}
		spent, err = r.Spent(d.Target, month(now))
		return err
	})
	if err != nil {
		return Result{}, errors.Join(err, e.logInvalid(ctx, d, KindTrigger, env, err))
	}
	refusal, err := e.inspect(ctx, d)
	if err = errors.Join(refusal, err); err != nil {
		return Result{}, err
	}
	decision := e.decide(ctx, d, upgrade.CaseEmergency, spent, now)
	if !decision.Allow {
		return Result{}, failure.New(failure.PolicyDenied, "the policy denies this upgrade, as an emergency too: %s", reasons(decision))
	}
	err = e.change(ctx, d.ID, func(got *dossier, tx Tx) error {
		d = got
		return e.breakGlass(d, tx, env, decision, spent, now)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Digest: env.PayloadDigest(), UpgradeID: d.ID, State: d.State, Added: true}, nil
}

func (e *Engine) breakGlass(d *dossier, tx Tx, env envelope.Envelope, decision *upgrade.PolicyDecision, spent []upgrade.Cost, now envelope.Time) error {
	if err := d.acceptsTrigger(env, now); err != nil {
		return err
	}
	t, err := upgrade.VerifyTrigger(d.reg, d.manifest, d.ManifestDigest, env, now)
	if err != nil {
		return err
	}
	target, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	if target.Applying != "" {
		return fmt.Errorf("%w: upgrade %s is being applied at %s; send the trigger again when that has ended", ErrConflict, target.Applying, d.Target)
	}
	if err := d.keep(tx, KindTrigger, t.TriggeredBy, t.TriggeredAt, now, env, env.Bytes()); err != nil {
		return err
	}
	if err := d.keepDecision(tx, decision, now); err != nil {
		return err
	}
	d.trigger, d.Case, d.newest = &env, upgrade.CaseEmergency, now
	bundle, v, refusal, err := e.verdict(d, tx, target, now)
	if err = errors.Join(refusal, err); err != nil {
		return err
	}
	return d.start(tx, bundle, v, target, spent, now)
}

// acceptsTrigger refuses a trigger that does not verify, and one of an upgrade
// that is not open: one that three rejected, say, or whose time is over, even
// where the engine has not come to say so.
func (d *dossier) acceptsTrigger(env envelope.Envelope, now envelope.Time) error {
	if _, err := upgrade.VerifyTrigger(d.reg, d.manifest, d.ManifestDigest, env, now); err != nil {
		return err
	}
	if d.suspended(env.Signatures[0].KeyID) {
		return failure.New(failure.KeySuspended, "the key that signed is suspended")
	}
	if !open(d.State) || now.After(d.ExpiresAt) || d.tally(now).Rejected {
		return fmt.Errorf("%w: upgrade %s is %s, rejected or over its time; an emergency needs an open one", ErrConflict, d.ID, d.State)
	}
	return nil
}

// mayBreakGlass is PROTOCOL section 8's: something to go back to, and no other
// emergency at the target that awaits its ratification, but one that is to be
// rolled back in time.
func (e *Engine) mayBreakGlass(r Reader, d *dossier, target Target, now envelope.Time) error {
	if d.manifest.BaseRevision == upgrade.None {
		return failure.New(failure.EmergencyNotAllowed, "an emergency needs something to go back to, and nothing is live at %s yet: its first upgrade needs a quorum", d.Target)
	}
	waiting := target.Emergencies
	if len(waiting) == 0 {
		return nil
	}
	if len(waiting) > 1 || d.Type != upgrade.TypeRollback || d.manifest.Rollback.UpgradeID != waiting[0] {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s at %s awaits its ratification", waiting[0], d.Target)
	}
	u, err := r.Upgrade(waiting[0])
	if err != nil {
		return err
	}
	if u.RatifyBy != nil && !now.Before(*u.RatifyBy) {
		return failure.New(failure.EmergencyNotAllowed, "emergency %s was to be ratified by %s; it is rolled back, or a quorum decides", waiting[0], u.RatifyBy)
	}
	return nil
}

// awaitRatification tells the guard of the apply, then looks whether people
// have ratified the emergency, or have missed to. A ratification that the guard
// was asked for is settled first: it may have signed before the window closed.
func (e *Engine) awaitRatification(ctx context.Context, id envelope.UUID) error {
	reported := e.report(ctx, id, auditlog.UpgradeApplied)
	var d *dossier
	if err := e.read(ctx, id, func(got *dossier, _ Reader) error { d = got; return nil }); err != nil {
		return err
	}
	if d.State != StateEmergencyApplied {
		return nil
	}
	if d.Ratifying != (envelope.Digest{}) {
		return errors.Join(reported, e.ratify(ctx, d))
	}
	err := e.change(ctx, id, func(d *dossier, tx Tx) error {
		now := e.now()
		if d.State != StateEmergencyApplied || d.Ratifying != (envelope.Digest{}) {
			return nil
		}
		switch {
		case d.RatifyBy == nil:
			return fmt.Errorf("emergency %s has no end of its window", d.ID)
		case now.After(*d.RatifyBy):
			return d.miss(tx, now)
		case d.tally(now).Quorum && reported == nil:
			return d.openRatification(tx, now)
		}
		return d.put(tx, now)
	})
	return errors.Join(reported, err)
}

// openRatification commits the ratification's bundle with its event.
func (d *dossier) openRatification(tx Tx, now envelope.Time) error {
	count := d.tally(now)
	b := &upgrade.QuorumBundle{Approvals: count.Approvals, Manifest: d.envelope, Quorum: upgrade.QuorumInfo{
		Approvers: count.Approvers, DecidedAt: now, KernelID: d.manifest.KernelID, ManifestDigest: d.ManifestDigest,
		RegistryDigest: d.reg.Digest(), UpgradeID: d.ID}}
	decided, err := d.decided()
	if err != nil {
		return err
	}
	emergency, err := upgrade.VerifyBundle(d.regs, decided)
	if err != nil {
		return err
	}
	if _, err := upgrade.VerifyRatification(d.regs, emergency, b); err != nil {
		// The proposer's key is not in force any more, say: no approval mends it.
		d.Reason = clip("three have approved, but it cannot be ratified: "+err.Error(), 1000)
		return d.put(tx, now)
	}
	body := b.Bytes()
	d.Ratifying = envelope.DigestOf(body)
	if _, err := tx.AddRecord(Record{Digest: d.Ratifying, UpgradeID: d.ID, Kind: KindRatificationBundle, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: body}); err != nil {
		return err
	}
	if err := d.log(tx, auditlog.UpgradeRatified, upgrade.KernelID, auditlog.Data{
		auditlog.DataBundleDigest: d.Ratifying.String(), "approvers": texts(count.Approvers)}); err != nil {
		return err
	}
	return d.putAt(tx, now)
}

// ratify asks the guard for the Ratification. From then on the upgrade is as any
// other that is live: its canary is next.
func (e *Engine) ratify(ctx context.Context, d *dossier) error {
	bundle, err := upgrade.ParseQuorumBundle(d.ratifying)
	if err != nil {
		return err
	}
	proof, err := e.prove(ctx, d.ID, auditlog.UpgradeRatified, d.Ratifying)
	if err != nil {
		return err
	}
	var env envelope.Envelope
	err = e.ask(ctx, func(ctx context.Context) (err error) {
		env, err = e.Guard.SignRatification(ctx, *bundle, proof)
		return err
	})
	if err != nil && failure.ClassOf(err) == "" {
		return err
	}
	asked := d.Ratifying
	return e.change(ctx, d.ID, func(d *dossier, tx Tx) error {
		if d.State != StateEmergencyApplied || d.Ratifying != asked {
			return nil
		}
		now := e.now()
		d.Ratifying = envelope.Digest{}
		if err != nil {
			// Nothing was signed: decide again, or see that it is too late.
			wait, logErr := d.logRefusal(tx, err)
			return errors.Join(logErr, d.putAt(tx, now.Add(wait)))
		}
		if _, err := tx.AddRecord(Record{Digest: env.PayloadDigest(), UpgradeID: d.ID, Kind: KindRatification, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: env.Bytes()}); err != nil {
			return err
		}
		d.ratification = &env
		if err := d.freeTarget(tx, func(t *Target) { t.closeEmergency(d.ID) }); err != nil {
			return err
		}
		d.Reason = ""
		if err := d.move(tx, MoveRatify, "", now, nil); err != nil {
			return err
		}
		return d.put(tx, now)
	})
}

// miss is what follows when nobody ratified in time: the Kernel takes the
// emergency back, where it is still live. An emergency rollback it leaves to
// people, for to undo that would put back what somebody broke the glass to remove.
func (d *dossier) miss(tx Tx, now envelope.Time) error {
	events, err := tx.UpgradeEvents(d.ID)
	if err != nil {
		return err
	}
	missed := newestEvent(events, auditlog.UpgradeRatificationFailed, envelope.Digest{}) != nil
	target, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	superseded := target.LiveUpgrade != d.ID
	if missed && superseded {
		return d.supersede(tx, target.LiveUpgrade, now)
	}
	if missed {
		return d.putIdle(tx) // it was left to people
	}
	if d.Type != upgrade.TypeRollback && !superseded {
		d.Reason = "nobody ratified it in time; the Kernel rolls it back"
		if err := d.move(tx, MoveScheduleRolling, auditlog.UpgradeRatificationFailed, now, auditlog.Data{"action": "rollback", "priority": "high"}); err != nil {
			return err
		}
		return d.put(tx, now)
	}
	d.Reason = "nobody ratified this emergency rollback in time; people must decide what is to be live"
	data := auditlog.Data{"action": "people", "priority": "high"}
	if superseded {
		data["action"] = "superseded"
	}
	if err := d.log(tx, auditlog.UpgradeRatificationFailed, upgrade.KernelID, data); err != nil {
		return err
	}
	if superseded {
		return d.supersede(tx, target.LiveUpgrade, now)
	}
	return d.putIdle(tx)
}
