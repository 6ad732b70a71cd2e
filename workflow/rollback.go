package workflow

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// raise has the guard sign the Kernel's rollback of an upgrade whose canary
// failed or whose ratification was missed, and makes it an upgrade. The guard
// signs one such manifest, so its content is kept before the guard is asked:
// after a crash the same is asked for again.
func (e *Engine) raise(ctx context.Context, id envelope.UUID) error {
	d, proof, err := e.prepareRollback(ctx, id)
	if err != nil || d == nil {
		return err
	}
	env, err := e.signRollback(ctx, d, proof)
	if failure.ClassOf(err) != "" {
		return e.rollbackDenied(ctx, d, err)
	} else if err != nil {
		return err
	}
	manifest, err := upgrade.OpenManifest(env)
	if err != nil {
		return err
	}
	now := e.now()
	r := &dossier{regs: d.regs, reg: d.reg, suspended: d.suspended, envelope: env, manifest: manifest, tests: map[string]test{}, newest: now}
	r.Upgrade = Upgrade{ID: manifest.UpgradeID, Target: d.Target, Type: upgrade.TypeRollback, ProposedBy: upgrade.KernelID,
		ManifestDigest: env.PayloadDigest(), Patch: manifest.PatchHash, Intent: intentOf(manifest), CreatedAt: now, UpdatedAt: now,
		ExpiresAt: now.Add(d.reg.Rules().ApprovalTTLSeconds)}
	r.Case, r.State, r.Reason = rollbackCase(d, now)
	var decision *upgrade.PolicyDecision
	if r.byQuorum() {
		decision = e.decide(ctx, r, upgrade.CaseQuorum, nil, now)
	}
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if d.State != StateRollbackScheduled || d.RollbackID != "" {
			return nil
		}
		d.RollbackID, d.UpdatedAt = r.ID, now
		if r.byQuorum() {
			d.Reason = "the canary failed; the Kernel proposes rollback " + string(r.ID) + ", which three must approve"
		}
		if err := r.created(tx, decision, now); err != nil {
			return err
		}
		return d.putIdle(tx)
	})
}

// signRollback asks with the newest draft. Where the guard has signed another,
// it was an earlier one whose answer was lost.
func (e *Engine) signRollback(ctx context.Context, d *dossier, proof *LogProof) (env envelope.Envelope, err error) {
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	for i := len(d.drafts) - 1; i >= 0; i-- {
		env, err = e.Guard.SignRollback(call, *d.drafts[i], proof)
		if failure.ClassOf(err) != failure.AlreadySigned {
			break
		}
	}
	return env, err
}

// rollbackCase is how the Kernel's rollback of an upgrade is decided, and so
// where it begins.
func rollbackCase(d *dossier, now envelope.Time) (upgrade.Case, State, string) {
	if d.unratified() {
		return upgrade.CaseAutomatic, StateQuorumReached, "the Kernel takes back an emergency that nobody ratified in time"
	}
	b, err := d.decided()
	if err == nil && len(marked(b)) >= upgrade.Quorum && now.Sub(b.Quorum.DecidedAt) <= upgrade.PreapprovedSeconds {
		return upgrade.CasePreapproved, StateQuorumReached, "three pre-approved this rollback for the case that the canary fails"
	}
	return upgrade.CaseQuorum, StatePendingApproval, ""
}

func (d *dossier) created(tx Tx, decision *upgrade.PolicyDecision, now envelope.Time) error {
	if err := d.put(tx, now); err != nil {
		return err
	}
	if err := d.keep(tx, KindManifest, upgrade.KernelID, d.manifest.Timestamp, now, d.envelope, d.envelope.Bytes()); err != nil {
		return err
	}
	if decision != nil {
		if err := d.keepDecision(tx, decision, now); err != nil {
			return err
		}
	}
	if err := d.log(tx, auditlog.UpgradeCreated, upgrade.KernelID, auditlog.Data{
		auditlog.DataRecordDigest: d.ManifestDigest.String(), "target": string(d.Target), "case": string(d.decidedAs()),
		"rollbackOf": string(d.manifest.Rollback.UpgradeID)}); err != nil {
		return err
	}
	if d.State != StatePendingApproval {
		return nil
	}
	return d.log(tx, auditlog.UpgradePendingApproval, upgrade.KernelID, code("kernel_rollback"))
}

// prepareRollback is the upgrade with the draft that the guard is asked to
// sign, and the proof that it needs. No upgrade: nothing is to be done.
func (e *Engine) prepareRollback(ctx context.Context, id envelope.UUID) (d *dossier, proof *LogProof, err error) {
	err = e.change(ctx, id, func(got *dossier, tx Tx) error {
		now := e.now()
		d = nil
		if got.State != StateRollbackScheduled {
			return nil
		}
		if over, err := e.over(got, tx, now); over || err != nil {
			return err
		}
		if got.RollbackID != "" {
			return got.putIdle(tx)
		}
		if len(got.drafts) == 0 {
			if err := got.keepDraft(tx, now); err != nil {
				return err
			}
		}
		d = got
		return nil
	})
	if err != nil || d == nil || d.unratified() {
		return d, nil, err
	}
	p, err := e.prove(ctx, id, auditlog.UpgradeCanaryFailed, envelope.Digest{})
	return d, &p, err
}

// keepDraft composes the Kernel's rollback manifest, but for the key, which
// the guard puts in.
func (d *dossier) keepDraft(tx Tx, now envelope.Time) error {
	patch, ok := d.manifest.BaseRevision.Digest()
	if !ok {
		return fmt.Errorf("upgrade %s has nothing to go back to", d.ID)
	}
	id, err := newUUID()
	if err != nil {
		return err
	}
	why := "its canary failed"
	if d.unratified() {
		why = "nobody ratified it in time"
	}
	draft := &upgrade.Manifest{
		BaseRevision: upgrade.RevisionOf(d.manifest.PatchHash), Impact: upgrade.Impact{Components: d.manifest.Impact.Components, Downtime: d.manifest.Impact.Downtime},
		KernelID: d.manifest.KernelID, KeyID: d.reg.Document().Kernel.Records[0].KeyID, PatchHash: patch,
		Preconditions: upgrade.Preconditions{Approvals: upgrade.Quorum, Tests: []string{}}, ProposedBy: upgrade.KernelID,
		Rationale: "The Kernel takes back upgrade " + string(d.ID) + ": " + why + ".",
		Rollback:  &upgrade.Rollback{Reason: why, UpgradeID: d.ID}, Target: d.manifest.Target, Timestamp: now, Type: upgrade.TypeRollback, UpgradeID: id,
	}
	d.drafts = append(d.drafts, draft)
	_, err = d.keepOwn(tx, KindRollbackDraft, rollbackDraft{*draft}, now)
	return err
}

// newUUID is a version 4 UUID (RFC 9562).
func newUUID() (envelope.UUID, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return envelope.UUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])), nil
}

// rollbackDenied: the draft is too old by now, so the next one is asked for; or
// the guard sees it otherwise, and is asked again later, for the Kernel owes
// this rollback.
func (e *Engine) rollbackDenied(ctx context.Context, asked *dossier, cause error) error {
	return e.change(ctx, asked.ID, func(d *dossier, tx Tx) error {
		if d.State != StateRollbackScheduled || d.RollbackID != "" {
			return nil
		}
		now := e.now()
		wait, err := d.logRefusal(tx, cause)
		if err != nil {
			return err
		}
		switch failure.ClassOf(cause) {
		case failure.TimeInvalid:
			if len(d.drafts) == len(asked.drafts) {
				err = d.keepDraft(tx, now)
			}
		default:
			d.Reason = clip("the guard does not sign the rollback: "+cause.Error(), 1000)
		}
		if err != nil {
			return err
		}
		return d.putAt(tx, now.Add(wait))
	})
}
