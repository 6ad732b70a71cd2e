package workflow

import (
	"context"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// step takes one due upgrade as far as one step goes. A claim is no lock: two
// engines may do the same step, so each one's transaction looks again whether
// the upgrade is still where the step began.
func (e *Engine) step(ctx context.Context, u Upgrade) error {
	switch u.State {
	case StateQuorumReached:
		return e.begin(ctx, u.ID)
	case StateApplying:
		return e.apply(ctx, u.ID)
	case StateApplied:
		return e.confirm(ctx, u.ID)
	case StateValidating:
		return e.watch(ctx, u.ID)
	case StateEmergencyApplied:
		return e.awaitRatification(ctx, u.ID)
	case StateRollbackScheduled:
		return e.raise(ctx, u.ID)
	case StateApplyFailed:
		if err := e.report(ctx, u.ID, auditlog.UpgradeApplyFailed); err != nil {
			return err
		}
	}
	if open(u.State) {
		return e.look(ctx, u.ID)
	}
	return e.change(ctx, u.ID, func(d *dossier, tx Tx) error {
		if d.State != u.State {
			return nil // whoever moved it wrote the row
		}
		return d.putIdle(tx)
	})
}

// change loads an upgrade in one transaction and changes it.
func (e *Engine) change(ctx context.Context, id envelope.UUID, f func(*dossier, Tx) error) error {
	return e.update(ctx, func(tx Tx) error {
		d, err := e.load(tx, id, e.now())
		if err != nil {
			return err
		}
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

// prove is the sealed proof of an upgrade's newest event of a type; where a
// bundle is given, of the one that names it.
func (e *Engine) prove(ctx context.Context, id envelope.UUID, eventType string, bundle envelope.Digest) (LogProof, error) {
	var found *StoredEvent
	err := e.Store.View(ctx, func(r Reader) error {
		events, err := r.UpgradeEvents(id)
		found = newestEvent(events, eventType, bundle)
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

func newestEvent(events []StoredEvent, eventType string, bundle envelope.Digest) (found *StoredEvent) {
	for i, ev := range events {
		if ev.Event.Type == eventType && (bundle == envelope.Digest{} || ev.Event.Data.Text(auditlog.DataBundleDigest) == bundle.String()) {
			found = &events[i]
		}
	}
	return found
}

// report tells the guard the sealed outcome of an apply. Told twice it changes nothing.
func (e *Engine) report(ctx context.Context, id envelope.UUID, eventType string) error {
	proof, err := e.prove(ctx, id, eventType, envelope.Digest{})
	if err != nil {
		return err
	}
	return e.ask(ctx, func(ctx context.Context) error { return e.Guard.Outcome(ctx, proof) })
}

// logRefusal logs that the guard refused, and says how many seconds to wait
// before it is asked about this upgrade again: so many refusals, so long.
func (d *dossier) logRefusal(tx Tx, cause error) (wait int64, err error) {
	events, err := tx.UpgradeEvents(d.ID)
	if err != nil {
		return 0, err
	}
	wait = 1
	for _, ev := range events {
		if ev.Event.Type == auditlog.GuardDenied {
			wait = min(2*wait, maxRefusedWait)
		}
	}
	return wait, d.log(tx, auditlog.GuardDenied, upgrade.KernelID, auditlog.Data{"class": string(failure.ClassOf(cause))})
}

// maxRefusedWait is how long, in seconds, the guard is left alone at most with
// what it keeps refusing.
const maxRefusedWait = 300
