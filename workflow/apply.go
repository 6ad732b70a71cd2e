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

// step takes one due upgrade as far as one step goes.
func (e *Engine) step(ctx context.Context, u Upgrade) error {
	switch u.State {
	case StateQuorumReached:
		return e.begin(ctx, u.ID)
	case StateApplying:
		return e.apply(ctx, u.ID)
	case StateApplied:
		return e.complete(ctx, u.ID)
	case StateApplyFailed:
		return e.report(ctx, u.ID, auditlog.UpgradeApplyFailed, func(d *dossier, tx Tx) error { return tx.PutUpgrade(d.Upgrade) })
	}
	now := e.now()
	return e.change(ctx, u.ID, now, func(d *dossier, tx Tx) error {
		if err := d.logStale(tx, now); err != nil {
			return err
		}
		return d.advance(tx, now)
	})
}

// change loads an upgrade in one transaction, with no work due, and changes it.
func (e *Engine) change(ctx context.Context, id envelope.UUID, now envelope.Time, f func(*dossier, Tx) error) error {
	return e.update(ctx, func(tx Tx) error {
		d, err := e.load(tx, id, now)
		if err != nil {
			return err
		}
		d.NextAt = nil
		return f(d, tx)
	})
}

func (e *Engine) read(ctx context.Context, id envelope.UUID, f func(*dossier, Reader) error) error {
	return e.Store.View(ctx, func(r Reader) error {
		d, err := e.load(r, id, e.now())
		if err != nil {
			return err
		}
		return f(d, r)
	})
}

// begin is the final verification; it stores the bundle with its event.
func (e *Engine) begin(ctx context.Context, id envelope.UUID) error {
	var d *dossier
	var spent []upgrade.Cost
	err := e.read(ctx, id, func(got *dossier, r Reader) (err error) {
		d = got
		spent, err = e.spent(r, d.Target, e.now())
		return err
	})
	if err != nil {
		return err
	}
	refusal, err := e.inspect(ctx, d)
	if err != nil {
		return err
	}
	now := e.now()
	decision := e.decide(ctx, d, spent, now)
	if !decision.Allow {
		refusal = errors.Join(refusal, failure.New(failure.PolicyDenied, "%s", reasons(decision)))
	}
	return e.change(ctx, id, now, func(d *dossier, tx Tx) error {
		if err := d.keepDecision(tx, decision, now); err != nil {
			return err
		}
		if err := d.advance(tx, now); err != nil || d.State != StateQuorumReached {
			return err
		}
		return e.commit(d, tx, refusal, now)
	})
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

func (e *Engine) commit(d *dossier, tx Tx, refusal error, now envelope.Time) error {
	target, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	if target.Applying != "" && target.Applying != d.ID {
		next := now.Add(1)
		d.NextAt = &next
		return tx.PutUpgrade(d.Upgrade)
	}
	if target.LiveUpgrade != "" && target.Live != d.manifest.BaseRevision {
		refusal = errors.Join(refusal, failure.New(failure.BaseRevisionMoved, "%s is live, not %s", target.Live, d.manifest.BaseRevision))
	}
	if err := e.checkRollback(tx, d, now); failure.ClassOf(err) != "" {
		refusal = errors.Join(refusal, err)
	} else if err != nil {
		return err
	}
	bundle := d.compose(now)
	regs, err := e.registries(tx)
	if err != nil {
		return err
	}
	if refusal == nil {
		_, refusal = upgrade.VerifyBundle(regs, bundle)
	}
	if refusal != nil {
		return d.refuse(tx, refusal, now)
	}
	body := bundle.Bytes()
	d.BundleDigest = envelope.DigestOf(body)
	if _, err := tx.AddRecord(Record{Digest: d.BundleDigest, UpgradeID: d.ID, Kind: KindQuorumBundle, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: body}); err != nil {
		return err
	}
	target.Name, target.Applying = d.Target, d.ID
	if err := tx.PutTarget(target); err != nil {
		return err
	}
	if err := d.move(tx, MoveApply, auditlog.UpgradeApplying, now, auditlog.Data{auditlog.DataBundleDigest: d.BundleDigest.String()}); err != nil {
		return err
	}
	return tx.PutUpgrade(d.plan(now))
}

func (d *dossier) refuse(tx Tx, cause error, now envelope.Time) error {
	d.Reason = clip(cause.Error(), 1000)
	if err := d.move(tx, MoveReject, auditlog.UpgradeRejected, now, auditlog.Data{"reason": d.Reason, "class": string(failure.ClassOf(cause))}); err != nil {
		return err
	}
	return tx.PutUpgrade(d.plan(now))
}

// compose is the quorum bundle as of now.
func (d *dossier) compose(now envelope.Time) *upgrade.QuorumBundle {
	count := d.tally(now)
	b := &upgrade.QuorumBundle{Approvals: count.Approvals, Manifest: d.envelope, PolicyDecision: d.policy, TestResults: []envelope.Envelope{}}
	for _, name := range d.manifest.Preconditions.Tests {
		b.TestResults = append(b.TestResults, d.tests[name].envelope)
	}
	b.Quorum = upgrade.QuorumInfo{Approvers: count.Approvers, DecidedAt: now, KernelID: d.manifest.KernelID,
		ManifestDigest: d.ManifestDigest, RegistryDigest: d.reg.Digest(), UpgradeID: d.ID}
	return b
}

// apply gets the record signed, then deploys, then asks what is live.
func (e *Engine) apply(ctx context.Context, id envelope.UUID) error {
	var d *dossier
	if err := e.read(ctx, id, func(got *dossier, _ Reader) error { d = got; return nil }); err != nil {
		return err
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
	bundle, err := upgrade.ParseQuorumBundle(d.bundle)
	if err != nil {
		return false, err
	}
	proof, err := e.prove(ctx, d.ID, auditlog.UpgradeApplying)
	if err != nil {
		return false, err
	}
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	env, err := e.Guard.SignRecord(call, *bundle, proof)
	now := e.now()
	if class := failure.ClassOf(err); class != "" {
		return false, e.denied(ctx, d.ID, err, now)
	} else if err != nil {
		return false, err
	}
	d.record = &env
	return true, e.update(ctx, func(tx Tx) error {
		_, err := tx.AddRecord(Record{Digest: env.PayloadDigest(), UpgradeID: d.ID, Kind: KindAppliedRecord, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: env.Bytes()})
		return err
	})
}

func (e *Engine) denied(ctx context.Context, id envelope.UUID, cause error, now envelope.Time) error {
	return e.change(ctx, id, now, func(d *dossier, tx Tx) error {
		class := failure.ClassOf(cause)
		if err := d.log(tx, auditlog.GuardDenied, upgrade.KernelID, auditlog.Data{"class": string(class), "detail": clip(failure.DetailOf(cause), 1000)}); err != nil {
			return err
		}
		if err := d.freeTarget(tx, nil); err != nil {
			return err
		}
		if class != failure.TimeInvalid {
			return d.refuse(tx, cause, now)
		}
		if err := d.move(tx, MoveRetake, "", now, nil); err != nil {
			return err
		}
		next := now.Add(1)
		d.NextAt = &next
		return tx.PutUpgrade(d.Upgrade)
	})
}

func (d *dossier) freeTarget(tx Tx, live func(*Target)) error {
	t, err := tx.Target(d.Target)
	if err != nil {
		return err
	}
	t.Name, t.Applying = d.Target, ""
	if live != nil {
		live(&t)
	}
	return tx.PutTarget(t)
}

// settle writes down what the target said after a deploy.
func (e *Engine) settle(ctx context.Context, id envelope.UUID, live upgrade.Revision, applyErr error) error {
	now := e.now()
	return e.change(ctx, id, now, func(d *dossier, tx Tx) error {
		data := auditlog.Data{auditlog.DataRecordDigest: d.record.PayloadDigest().String(), auditlog.DataBundleDigest: d.BundleDigest.String()}
		if live != upgrade.RevisionOf(d.manifest.PatchHash) {
			d.Reason = clip(fmt.Sprintf("%s is live after the deploy: %v", live, applyErr), 1000)
			data["reason"] = d.Reason
			return errors.Join(d.move(tx, MoveApplyFailed, auditlog.UpgradeApplyFailed, now, data), d.freeTarget(tx, nil), tx.PutUpgrade(d.plan(now)))
		}
		err := d.freeTarget(tx, func(t *Target) { t.Live, t.LiveUpgrade = live, d.ID })
		err = errors.Join(err, d.move(tx, MoveApplied, auditlog.UpgradeApplied, now, data))
		if err == nil && d.Type == upgrade.TypeRollback {
			err = e.takeBack(tx, d, now)
		}
		return errors.Join(err, tx.PutUpgrade(d.plan(now)))
	})
}

// takeBack marks the upgrade that a rollback took back.
func (e *Engine) takeBack(tx Tx, rollback *dossier, now envelope.Time) error {
	u, err := e.load(tx, rollback.manifest.Rollback.UpgradeID, now)
	if err != nil {
		return err
	}
	u.NextAt = nil
	u.Reason = clip(rollback.manifest.Rollback.Reason, 1000)
	if err := u.move(tx, MoveRolledBack, auditlog.UpgradeRollback, now, auditlog.Data{"rollbackUpgradeId": string(rollback.ID)}); err != nil {
		return err
	}
	return tx.PutUpgrade(u.Upgrade)
}

// prove is the sealed proof of an upgrade's newest event of a type.
func (e *Engine) prove(ctx context.Context, id envelope.UUID, eventType string) (LogProof, error) {
	var found *StoredEvent
	err := e.Store.View(ctx, func(r Reader) error {
		events, err := r.UpgradeEvents(id)
		for i := range events {
			if events[i].Event.Type == eventType {
				found = &events[i]
			}
		}
		return err
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: upgrade %s has no event %s", ErrNotFound, id, eventType)
	}
	if err != nil {
		return LogProof{}, err
	}
	return e.proveEvent(ctx, *found)
}

// report tells the guard the sealed outcome, then finishes in a transaction.
func (e *Engine) report(ctx context.Context, id envelope.UUID, eventType string, then func(*dossier, Tx) error) error {
	proof, err := e.prove(ctx, id, eventType)
	if err != nil {
		return err
	}
	if err := e.Guard.Outcome(ctx, proof); err != nil {
		return err
	}
	return e.change(ctx, id, e.now(), then)
}

func (e *Engine) complete(ctx context.Context, id envelope.UUID) error {
	return e.report(ctx, id, auditlog.UpgradeApplied, func(d *dossier, tx Tx) error {
		now := e.now()
		bundle, err := upgrade.ParseQuorumBundle(d.bundle)
		if err != nil {
			return err
		}
		var results []string
		for _, name := range d.manifest.Preconditions.Tests {
			results = append(results, name+"="+d.tests[name].Result)
		}
		err = d.move(tx, MoveComplete, auditlog.UpgradeCompleted, now, auditlog.Data{
			auditlog.DataRecordDigest: d.record.PayloadDigest().String(), auditlog.DataBundleDigest: d.BundleDigest.String(),
			"approvers": texts(bundle.Quorum.Approvers), "results": append([]string{}, results...), "log": auditlog.Origin(d.manifest.KernelID)})
		return errors.Join(err, tx.PutUpgrade(d.plan(now)))
	})
}
