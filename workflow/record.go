package workflow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// incoming is a record of a person or CI about an upgrade, verified.
type incoming struct {
	kind     string
	envelope envelope.Envelope
	upgrade  envelope.UUID
	person   envelope.ID
	signedAt envelope.Time
	event    string
	data     auditlog.Data
	approval *upgrade.Approval // of an approval
}

func (e *Engine) submitRecord(ctx context.Context, kind string, env envelope.Envelope) (Result, error) {
	now := e.now()
	var d *dossier
	var in incoming
	var spent []upgrade.Cost
	err := e.Store.View(ctx, func(r Reader) error {
		id, err := subjectOf(env)
		if err != nil {
			return err
		}
		if d, err = e.load(r, id, now); err != nil {
			return err
		}
		if in, err = d.verify(kind, opened{envelope: env}, now); err != nil {
			return err
		}
		if spent, err = r.Spent(d.Target, month(now)); err != nil {
			return err
		}
		return d.accepts(kind)
	})
	if err != nil {
		return Result{}, errors.Join(err, e.logInvalid(ctx, d, kind, env, err))
	}
	in.apply(d)
	// Of an emergency the policy was asked when it was applied; people ratify
	// it or do not.
	var decision *upgrade.PolicyDecision
	if open(d.State) && !e.stillAllows(d, now) {
		decision = e.decide(ctx, d, upgrade.CaseQuorum, spent, now)
	}
	if decision != nil && !decision.Allow && kind == KindApproval {
		if err := e.keepDenial(ctx, d, decision, now); err != nil {
			return Result{}, err
		}
		return Result{}, failure.New(failure.PolicyDenied, "the policy denies this upgrade, so approvals are not taken: %s", reasons(decision))
	}
	err = e.update(ctx, func(tx Tx) error {
		if d, err = e.load(tx, in.upgrade, now); err != nil {
			return err
		}
		if _, err := d.verify(kind, opened{envelope: env}, now); err != nil {
			return err
		}
		if err := d.accepts(kind); err != nil {
			return err
		}
		if err := d.keep(tx, kind, in.person, in.signedAt, now, env, env.Bytes()); err != nil {
			return err
		}
		return d.take(tx, in, decision, now)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Digest: env.PayloadDigest(), UpgradeID: d.ID, State: d.State, Added: true}, nil
}

// take moves the upgrade as far as a record carries it that was stored.
func (d *dossier) take(tx Tx, in incoming, decision *upgrade.PolicyDecision, now envelope.Time) error {
	if err := d.log(tx, in.event, in.person, in.data); err != nil {
		return err
	}
	in.apply(d)
	if !open(d.State) {
		return d.putAt(tx, now)
	}
	d.newest = now
	d.ExpiresAt = now.Add(d.reg.Rules().ApprovalTTLSeconds)
	if decision != nil {
		if err := d.keepDecision(tx, decision, now); err != nil {
			return err
		}
	}
	return d.advance(tx, now)
}

func (in incoming) apply(d *dossier) {
	switch in.kind {
	case KindApproval, KindRejection:
		d.decisions = append(d.decisions, upgrade.Decision{Person: in.person, Rejected: in.kind == KindRejection, SignedAt: in.signedAt, Envelope: in.envelope, Approval: in.approval})
	case KindTestResult:
		// It verified a moment ago, so the error is nil.
		if t, err := upgrade.VerifyTestResult(d.reg, in.envelope, d.manifest.PatchHash, in.signedAt); err == nil {
			d.tests[t.Name] = test{*t, in.envelope}
		}
	}
}

// accepts says whether an upgrade in its state still takes such records: an
// open one does, and an emergency until it is ratified or taken back.
func (d *dossier) accepts(kind string) error {
	emergency := d.Case == upgrade.CaseEmergency && (d.State == StateApplying || d.State == StateEmergencyApplied)
	if !open(d.State) && !emergency || d.State == StateDraft && kind == KindApproval {
		return fmt.Errorf("%w: upgrade %s is %s and takes no %s", ErrConflict, d.ID, d.State, kind)
	}
	return nil
}

// subjectOf is the upgrade that an unverified record claims to be about.
func subjectOf(env envelope.Envelope) (envelope.UUID, error) {
	var claim struct {
		UpgradeID envelope.UUID `json:"upgradeId"`
	}
	err := envelope.DecodeForeign(env.Payload, &claim)
	return claim.UpgradeID, err
}

// verify judges a record by the registry in force, suspensions included. It need
// not be parsed yet.
func (d *dossier) verify(kind string, o opened, now envelope.Time) (incoming, error) {
	env := o.envelope
	in := incoming{kind: kind, envelope: env, upgrade: d.ID, signedAt: now, data: auditlog.Data{auditlog.DataRecordDigest: env.PayloadDigest().String()}}
	var err error
	switch kind {
	case KindApproval:
		a := o.approval
		if a == nil {
			a, err = upgrade.OpenApproval(env)
		}
		if err == nil {
			err = upgrade.CheckApproval(d.reg, d.manifest, d.ManifestDigest, env, a, now)
		}
		if err == nil {
			in.approval, in.person, in.signedAt, in.event = a, a.ApproverID, a.ApprovalTs, auditlog.ApprovalSubmitted
		}
	case KindRejection:
		var r *upgrade.Rejection
		if r, err = upgrade.VerifyRejection(d.reg, d.manifest, d.ManifestDigest, env, now); err == nil {
			in.person, in.signedAt, in.event = r.ApproverID, r.RejectionTs, auditlog.ApprovalRejected
		}
	case KindTestRequest:
		var r *upgrade.TestRequest
		if r, err = upgrade.VerifyTestRequest(d.reg, d.manifest, d.ManifestDigest, env, now); err == nil {
			in.person, in.signedAt, in.event = r.ApproverID, r.RequestTs, auditlog.UpgradeTestsRequested
			in.data["tests"] = int64(len(r.Tests))
		}
	case KindTestResult:
		err = in.verifyTest(d, env, now)
	}
	if err == nil && d.suspended(env.Signatures[0].KeyID) {
		err = failure.New(failure.KeySuspended, "the key that signed is suspended")
	}
	return in, err
}

func (in *incoming) verifyTest(d *dossier, env envelope.Envelope, now envelope.Time) error {
	t, err := upgrade.VerifyTestResult(d.reg, env, d.manifest.PatchHash, now)
	if err != nil {
		return err
	}
	entry, err := d.reg.Lookup(env.Signatures[0].KeyID)
	in.person, in.event = entry.ID, auditlog.UpgradeTestsReported
	in.data["result"] = t.Result
	return err
}

// How many approval.invalid events one upgrade gets: anybody who may call can
// send nonsense, and the log keeps everything. The keyid is only claimed, so it
// alone bounds nothing. The event that reaches a bound says so.
const (
	maxInvalidOfKey = 8
	maxInvalid      = 64
)

// logInvalid logs an approval, rejection or trigger that did not verify, within
// the bounds. Nothing else changes.
func (e *Engine) logInvalid(ctx context.Context, d *dossier, kind string, env envelope.Envelope, cause error) error {
	class := failure.ClassOf(cause)
	if d == nil || class == "" || kind == KindTestRequest || len(env.Signatures) == 0 {
		return nil
	}
	key := string(env.Signatures[0].KeyID)
	return e.update(ctx, func(tx Tx) error {
		events, err := tx.UpgradeEvents(d.ID)
		if err != nil {
			return err
		}
		all, ofKey := 1, 1
		for _, ev := range events {
			if ev.Event.Type == auditlog.ApprovalInvalid {
				all++
				if ev.Event.Data.Text("keyId") == key {
					ofKey++
				}
			}
		}
		if all > maxInvalid || ofKey > maxInvalidOfKey {
			return nil
		}
		return d.log(tx, auditlog.ApprovalInvalid, upgrade.KernelID, auditlog.Data{auditlog.DataRecordDigest: env.PayloadDigest().String(),
			"kind": kind, "class": string(class), "keyId": key, "last": all == maxInvalid || ofKey == maxInvalidOfKey})
	})
}

// keepDenial stores a denial that says something new.
func (e *Engine) keepDenial(ctx context.Context, d *dossier, decision *upgrade.PolicyDecision, now envelope.Time) error {
	if !d.changes(decision) {
		return nil
	}
	return e.update(ctx, func(tx Tx) error {
		d, err := e.load(tx, d.ID, now)
		if err != nil {
			return err
		}
		if err := d.keepDecision(tx, decision, now); err != nil {
			return err
		}
		return d.put(tx, now)
	})
}

// changes says whether a decision says something else than the newest.
func (d *dossier) changes(decision *upgrade.PolicyDecision) bool {
	return d.policy == nil || d.policy.Allow != decision.Allow || !slices.Equal(d.policy.Violations, decision.Violations)
}

// RequestApprovals opens an upgrade for approvals. Where required tests have
// not passed it pauses instead, and goes on by itself once they have.
func (e *Engine) RequestApprovals(ctx context.Context, id envelope.UUID, actor envelope.ID) (State, error) {
	defer e.poke()
	now := e.now()
	var state State
	err := e.update(ctx, func(tx Tx) error {
		d, err := e.load(tx, id, now)
		if err != nil {
			return err
		}
		if d.State == StateDraft {
			unmet, _ := d.unmet()
			if len(unmet) > 0 {
				d.Reason = untested(unmet)
				err = d.move(tx, MoveTestsFailed, "", now, nil)
				err = errors.Join(err, d.log(tx, auditlog.UpgradePaused, actor, auditlog.Data{"unmetTests": int64(len(unmet))}))
			} else {
				err = d.move(tx, MoveReady, "", now, nil)
				err = errors.Join(err, d.log(tx, auditlog.UpgradePendingApproval, actor, nil))
			}
			if err == nil {
				err = d.advance(tx, now)
			}
		} else if !open(d.State) {
			err = fmt.Errorf("%w: upgrade %s is %s", ErrConflict, id, d.State)
		}
		state = d.State
		return err
	})
	return state, err
}
