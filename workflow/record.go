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

// incoming is a record of a person or CI about an upgrade, verified.
type incoming struct {
	kind     string
	envelope envelope.Envelope
	upgrade  envelope.UUID
	person   envelope.ID
	signedAt envelope.Time
	event    string
	data     auditlog.Data
}

func (e *Engine) submitRecord(ctx context.Context, kind string, env envelope.Envelope) (Result, error) {
	now := e.now()
	var d *dossier
	var in incoming
	var spent []upgrade.Cost
	err := e.Store.View(ctx, func(r Reader) error {
		id, err := subjectOf(r, kind, env)
		if err != nil {
			return err
		}
		if d, err = e.load(r, id, now); err != nil {
			return err
		}
		if in, err = d.verify(kind, env, now); err != nil {
			return err
		}
		if spent, err = e.spent(r, d.Target, now); err != nil {
			return err
		}
		return d.accepts(kind)
	})
	if err != nil {
		if logErr := e.logInvalid(ctx, d, kind, env, err); logErr != nil {
			return Result{}, errors.Join(err, logErr)
		}
		return Result{}, err
	}
	in.apply(d)
	decision := e.decide(ctx, d, spent, now)
	if !decision.Allow && kind == KindApproval {
		if err := e.keepDenial(ctx, in.upgrade, decision, now); err != nil {
			return Result{}, err
		}
		return Result{}, failure.New(failure.PolicyDenied, "the policy denies this upgrade, so approvals are not taken: %s", reasons(decision))
	}
	err = e.update(ctx, func(tx Tx) error {
		if d, err = e.load(tx, in.upgrade, now); err != nil {
			return err
		}
		if _, err := d.verify(kind, env, now); err != nil {
			return err
		}
		return d.take(tx, in, decision, now)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Digest: env.PayloadDigest(), UpgradeID: d.ID, State: d.State, Added: true}, nil
}

// take stores a verified record and moves the upgrade as far as it carries.
func (d *dossier) take(tx Tx, in incoming, decision *upgrade.PolicyDecision, now envelope.Time) error {
	if err := d.accepts(in.kind); err != nil {
		return err
	}
	if err := d.keep(tx, in.kind, in.person, in.signedAt, now, in.envelope); err != nil {
		return err
	}
	if err := d.log(tx, in.event, in.person, in.data); err != nil {
		return err
	}
	in.apply(d)
	d.ExpiresAt = now.Add(d.reg.Rules().ApprovalTTLSeconds)
	if err := d.keepDecision(tx, decision, now); err != nil {
		return err
	}
	return d.advance(tx, now)
}

func (in incoming) apply(d *dossier) {
	switch in.kind {
	case KindApproval, KindRejection:
		d.decisions = append(d.decisions, upgrade.Decision{Person: in.person, Rejected: in.kind == KindRejection, SignedAt: in.signedAt, Envelope: in.envelope})
	case KindTestResult:
		// It verified a moment ago, so the error is nil.
		if t, err := upgrade.VerifyTestResult(d.reg, in.envelope, d.manifest.PatchHash, in.signedAt); err == nil {
			d.tests[t.Name] = test{*t, in.envelope}
		}
	}
}

// accepts says whether an upgrade in its state still takes such records.
func (d *dossier) accepts(kind string) error {
	if !open(d.State) || d.State == StateDraft && kind == KindApproval {
		return fmt.Errorf("%w: upgrade %s is %s and takes no %s", ErrConflict, d.ID, d.State, kind)
	}
	return nil
}

// subjectOf is the upgrade that an unverified record claims to be about. A test
// result names a patch: the open upgrade of that patch.
func subjectOf(r Reader, kind string, env envelope.Envelope) (envelope.UUID, error) {
	if kind != KindTestResult {
		var claim struct {
			UpgradeID envelope.UUID `json:"upgradeId"`
		}
		if err := envelope.DecodeForeign(env.Payload, &claim); err != nil {
			return "", err
		}
		return claim.UpgradeID, nil
	}
	var claim struct {
		Subject []struct {
			Digest struct {
				SHA256 string `json:"sha256"`
			} `json:"digest"`
		} `json:"subject"`
	}
	if err := envelope.DecodeForeign(env.Payload, &claim); err != nil {
		return "", err
	}
	if len(claim.Subject) != 1 {
		return "", failure.New(failure.FieldInvalid, "a test result has exactly one subject")
	}
	return openWithPatch(r, "sha256:"+claim.Subject[0].Digest.SHA256)
}

func openWithPatch(r Reader, patch string) (envelope.UUID, error) {
	page := Page{Limit: 100, States: []State{StateDraft, StatePaused, StatePendingApproval, StateQuorumReached}}
	for {
		list, next, err := r.Upgrades(page)
		if err != nil {
			return "", err
		}
		for _, u := range list {
			rec, err := r.Record(u.ManifestDigest)
			if err != nil {
				return "", err
			}
			env, err := envelope.Parse(rec.Body)
			if err != nil {
				return "", err
			}
			if m, err := upgrade.OpenManifest(env); err == nil && m.PatchHash.String() == patch {
				return u.ID, nil
			}
		}
		if next == "" {
			return "", fmt.Errorf("%w: no open upgrade has the patch %.80s", ErrNotFound, patch)
		}
		page.Cursor = next
	}
}

// verify judges a record by the registry in force, suspensions included.
func (d *dossier) verify(kind string, env envelope.Envelope, now envelope.Time) (incoming, error) {
	in := incoming{kind: kind, envelope: env, upgrade: d.ID, signedAt: now, data: auditlog.Data{auditlog.DataRecordDigest: env.PayloadDigest().String()}}
	var err error
	switch kind {
	case KindApproval:
		var a *upgrade.Approval
		if a, err = upgrade.VerifyApproval(d.reg, d.manifest, d.ManifestDigest, env, now); err == nil {
			in.person, in.signedAt, in.event = a.ApproverID, a.ApprovalTs, auditlog.ApprovalSubmitted
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
			in.data["tests"] = r.Tests
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
	in.data["test"], in.data["result"] = t.Name, t.Result
	return err
}

// logInvalid logs an approval or rejection that did not verify. Nothing else changes.
func (e *Engine) logInvalid(ctx context.Context, d *dossier, kind string, env envelope.Envelope, cause error) error {
	class := failure.ClassOf(cause)
	if d == nil || class == "" || kind != KindApproval && kind != KindRejection {
		return nil
	}
	return e.update(ctx, func(tx Tx) error {
		return d.log(tx, auditlog.ApprovalInvalid, upgrade.KernelID, auditlog.Data{
			auditlog.DataRecordDigest: env.PayloadDigest().String(), "class": string(class), "detail": clip(failure.DetailOf(cause), 1000)})
	})
}

func (e *Engine) keepDenial(ctx context.Context, id envelope.UUID, decision *upgrade.PolicyDecision, now envelope.Time) error {
	return e.update(ctx, func(tx Tx) error {
		d, err := e.load(tx, id, now)
		if err != nil {
			return err
		}
		return d.keepDecision(tx, decision, now)
	})
}

func reasons(p *upgrade.PolicyDecision) string {
	text := ""
	for _, v := range p.Violations {
		text += v.Rule + ": " + v.Message + "; "
	}
	return clip(text, 900)
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
				d.Reason = "required tests are missing or failed"
				err = d.move(tx, MoveTestsFailed, "", now, nil)
				err = errors.Join(err, d.log(tx, auditlog.UpgradePaused, actor, auditlog.Data{"tests": unmet}))
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
