package workflow

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// begin is the final verification, of any case; it stores the bundle with its
// event.
func (e *Engine) begin(ctx context.Context, id envelope.UUID) error {
	var d *dossier
	if err := e.read(ctx, id, func(got *dossier, _ Reader) error { d = got; return nil }); err != nil {
		return err
	}
	if err := e.measure(ctx, d); err != nil {
		return err
	}
	refusal, err := e.inspect(ctx, d)
	if err != nil {
		return err
	}
	now := e.now()
	var spent []upgrade.Cost
	err = e.Store.View(ctx, func(r Reader) (err error) {
		spent, err = r.Spent(d.Target, month(now))
		return err
	})
	if err != nil {
		return err
	}
	var decision *upgrade.PolicyDecision
	if d.Case != upgrade.CaseAutomatic {
		decision = e.decide(ctx, d, d.decidedAs(), spent, now)
		if !decision.Allow {
			refusal = errors.Join(refusal, failure.New(failure.PolicyDenied, "%s", reasons(decision)))
		}
	}
	return e.change(ctx, id, func(d *dossier, tx Tx) error {
		if d.State != StateQuorumReached {
			return nil
		}
		if decision != nil {
			if err := d.keepDecision(tx, decision, now); err != nil {
				return err
			}
		}
		if err := d.advance(tx, now); err != nil || d.State != StateQuorumReached {
			return err
		}
		return e.conclude(d, tx, spent, refusal, now)
	})
}

func (d *dossier) decidedAs() upgrade.Case {
	if d.byQuorum() {
		return upgrade.CaseQuorum
	}
	return d.Case
}

// inspect asks artifact store and target. A refusal is final; err is not.
func (e *Engine) inspect(ctx context.Context, d *dossier) (refusal, err error) {
	r, _, err := e.Artifacts.Open(ctx, d.manifest.PatchHash)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrArtifactCorrupt) {
		refusal, err = failure.New(failure.ArtifactMismatch, "the artifact %s: %w", d.manifest.PatchHash, err), nil
	}
	if err != nil {
		return nil, err
	}
	live, err := e.Deployer.Live(ctx, d.Target)
	if err == nil && live != d.manifest.BaseRevision {
		refusal = errors.Join(refusal, failure.New(failure.BaseRevisionMoved, "%s is live, not %s", live, d.manifest.BaseRevision))
	}
	return refusal, err
}

// conclude starts the apply, or does what a refusal of its case leads to.
func (e *Engine) conclude(d *dossier, tx Tx, spent []upgrade.Cost, refusal error, now envelope.Time) error {
	target, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	if target.Applying != "" && target.Applying != d.ID {
		return d.putAt(tx, now.Add(1)) // one upgrade per target at a time
	}
	bundle, verdict, found, err := e.verdict(d, tx, target, now)
	if err != nil {
		return err
	}
	if refusal = errors.Join(refusal, found); refusal != nil {
		return d.refused(tx, refusal, now)
	}
	return d.start(tx, bundle, verdict, target, spent, now)
}

// verdict composes the bundle of the upgrade's case as of now and verifies it
// as anybody will, and what only the gateway knows. A refusal is no err.
func (e *Engine) verdict(d *dossier, tx Tx, target Target, now envelope.Time) (b *upgrade.QuorumBundle, v *upgrade.Verdict, refusal, err error) {
	if target.LiveUpgrade != "" && target.Live != d.manifest.BaseRevision {
		refusal = failure.New(failure.BaseRevisionMoved, "%s is live, not %s", target.Live, d.manifest.BaseRevision)
	}
	rollback := e.checkRollback(tx, d, now)
	if rollback != nil && failure.ClassOf(rollback) == "" {
		return nil, nil, nil, rollback
	}
	refusal = errors.Join(refusal, rollback)
	if d.Case == upgrade.CaseEmergency {
		refusal = errors.Join(refusal, e.mayBreakGlass(tx, d, target, now))
	}
	if refusal != nil {
		return nil, nil, refusal, nil
	}
	if b, err = e.compose(d, tx, now); err != nil {
		return nil, nil, nil, err
	}
	v, refusal = upgrade.VerifyBundle(d.regs, b)
	if refusal == nil {
		for _, key := range v.Keys {
			if d.suspended(key) {
				refusal = failure.New(failure.KeySuspended, "key %s is suspended", key)
			}
		}
	}
	return b, v, refusal, nil
}

// start stores the bundle with its event: from here on the guard decides. The
// event says what the policy was told of spending, for the guard to ask the same.
func (d *dossier) start(tx Tx, b *upgrade.QuorumBundle, v *upgrade.Verdict, target Target, spent []upgrade.Cost, now envelope.Time) error {
	body := b.Bytes()
	d.BundleDigest, d.RatifyBy, d.Reason = v.BundleDigest, v.RatifyBy, ""
	if _, err := tx.AddRecord(Record{Digest: d.BundleDigest, UpgradeID: d.ID, Kind: KindQuorumBundle, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: body}); err != nil {
		return err
	}
	target.Name, target.Applying = d.Target, d.ID
	if err := tx.PutTarget(target); err != nil {
		return err
	}
	move, data := MoveApply, auditlog.Data{auditlog.DataBundleDigest: d.BundleDigest.String(), "case": string(v.Case)}
	if len(spent) > 0 {
		data[auditlog.DataSpent] = sums(spent)
	}
	if v.Case == upgrade.CaseEmergency {
		move, data["triggerDigest"] = MoveEmergency, b.EmergencyTrigger.PayloadDigest().String()
	}
	if err := d.move(tx, move, auditlog.UpgradeApplying, now, data); err != nil {
		return err
	}
	return d.put(tx, now)
}

// sums are costs as an event has them.
func sums(costs []upgrade.Cost) []string {
	out := make([]string, len(costs))
	for i, c := range costs {
		out[i] = fmt.Sprintf("%s=%d", c.Currency, c.MinorUnits)
	}
	return out
}

// refused is what follows when the final check fails: an upgrade of people is
// rejected, with all reasons. The Kernel's own rollback goes back to people, or
// is tried again: an automatic one has no other.
func (d *dossier) refused(tx Tx, cause error, now envelope.Time) error {
	switch {
	case d.Case == upgrade.CasePreapproved:
		return d.backToPeople(tx, cause, now)
	case d.Case == upgrade.CaseEmergency && failure.ClassOf(cause) == failure.TimeInvalid:
		return d.backToPeople(tx, cause, now)
	case d.Case == upgrade.CaseAutomatic && failure.ClassOf(cause) != failure.BaseRevisionMoved:
		d.Reason = clip(cause.Error(), 1000)
		return d.putAt(tx, now.Add(maxBackoff))
	}
	return d.reject(tx, cause, now)
}

func (d *dossier) reject(tx Tx, cause error, now envelope.Time) error {
	d.Reason = clip(cause.Error(), 1000)
	if err := d.move(tx, MoveReject, auditlog.UpgradeRejected, now, auditlog.Data{"classes": classes(cause)}); err != nil {
		return err
	}
	return d.put(tx, now)
}

// backToPeople makes an upgrade that was to go without a quorum of its own an
// ordinary one, which three must approve.
func (d *dossier) backToPeople(tx Tx, cause error, now envelope.Time) error {
	d.Reason = clip("three must approve it: "+cause.Error(), 1000)
	data := auditlog.Data{"code": "needs_quorum", "was": string(d.Case), "classes": classes(cause)}
	d.Case, d.RatifyBy = upgrade.CaseQuorum, nil
	if err := d.move(tx, MoveQuorumLost, auditlog.UpgradePendingApproval, now, data); err != nil {
		return err
	}
	return d.put(tx, now)
}

// compose is the bundle of the upgrade's case as of now.
func (e *Engine) compose(d *dossier, r Reader, now envelope.Time) (*upgrade.QuorumBundle, error) {
	b := &upgrade.QuorumBundle{Approvals: []envelope.Envelope{}, Manifest: d.envelope, PolicyDecision: d.policy, TestResults: []envelope.Envelope{}}
	b.Quorum = upgrade.QuorumInfo{Approvers: []envelope.ID{}, DecidedAt: now, KernelID: d.manifest.KernelID,
		ManifestDigest: d.ManifestDigest, RegistryDigest: d.reg.Digest(), UpgradeID: d.ID}
	switch d.Case {
	case upgrade.CaseEmergency:
		b.EmergencyTrigger = d.trigger
	case upgrade.CaseAutomatic, upgrade.CasePreapproved:
		return b, e.nest(d, b, r, now)
	default:
		count := d.tally(now)
		b.Approvals, b.Quorum.Approvers = count.Approvals, count.Approvers
		for _, name := range d.manifest.Preconditions.Tests {
			b.TestResults = append(b.TestResults, d.tests[name].envelope)
		}
	}
	return b, nil
}

// nest puts the decision that the Kernel's own rollback rests on into its bundle.
func (e *Engine) nest(d *dossier, b *upgrade.QuorumBundle, r Reader, now envelope.Time) error {
	u, err := e.load(r, d.manifest.Rollback.UpgradeID, now)
	if err != nil {
		return err
	}
	decided, err := u.decided()
	if err != nil {
		return err
	}
	if u.record == nil {
		return fmt.Errorf("%w: upgrade %s has no record to take back", ErrConflict, u.ID)
	}
	nested := &upgrade.Nested{QuorumBundle: *decided, Record: *u.record}
	if d.Case == upgrade.CaseAutomatic {
		b.Emergency, b.PolicyDecision = nested, nil
		return nil
	}
	b.Preapproval = nested
	for _, a := range marked(decided) {
		b.Quorum.Approvers = append(b.Quorum.Approvers, a.ApproverID)
	}
	return nil
}

// marked are the approvals of a bundle that pre-approve its rollback.
func marked(b *upgrade.QuorumBundle) (out []upgrade.Approval) {
	for _, env := range b.Approvals {
		var a upgrade.Approval
		// It verified when the bundle was made.
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &a); err == nil && a.RollbackPreapproved {
			out = append(out, a)
		}
	}
	return out
}
