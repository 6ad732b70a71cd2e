package workflow

import (
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// An upgrade whose canary failed, or an emergency that nobody ratified, is live
// and waits for people. It ends when it is rolled back; when another upgrade is
// live in its place; or when three have rejected the rollback of what has a
// quorum of its own: so they keep it.

// mayWait are the states in which what is live waits for one of these.
var mayWait = []State{StateValidating, StateRollbackScheduled, StateEmergencyApplied}

// wake has an upgrade looked at that waits while it is live.
func wake(tx Tx, id envelope.UUID, now envelope.Time) error {
	if id == "" {
		return nil
	}
	u, err := tx.Upgrade(id)
	if err != nil || !slices.Contains(mayWait, u.State) {
		return err
	}
	u.NextAt = &now
	return tx.PutUpgrade(u)
}

// leave says of a rollback that three have rejected it, to the upgrade that it
// would have taken back, where that one's canary failed.
func (d *dossier) leave(tx Tx, now envelope.Time) error {
	if d.Type != upgrade.TypeRollback {
		return nil
	}
	id := d.manifest.Rollback.UpgradeID
	u, err := tx.Upgrade(id)
	if err != nil || !slices.Contains(mayWait, u.State) {
		return err
	}
	records, err := tx.Records(id)
	if err != nil || !slices.ContainsFunc(records, func(r Record) bool { return r.Kind == KindCanaryReport }) {
		return err // while the canary measures, its word is waited for
	}
	u.RollbackID, u.NextAt = d.ID, &now
	return tx.PutUpgrade(u)
}

// over completes an upgrade that waits no longer, and says whether it did.
func (e *Engine) over(d *dossier, tx Tx, now envelope.Time) (bool, error) {
	target, err := tx.Target(d.Target)
	if err != nil {
		return false, err
	}
	if target.LiveUpgrade != d.ID {
		return true, d.supersede(tx, target.LiveUpgrade, now)
	}
	if d.RollbackID == "" || d.unratified() {
		return false, nil
	}
	rollback, err := e.load(tx, d.RollbackID, now)
	if err != nil || rollback.State != StateRejected || !rollback.tally(now).Rejected {
		return false, err
	}
	return true, d.complete(tx, "kept", "the canary failed, and three rejected the rollback "+string(rollback.ID)+": it stays", now)
}

func (d *dossier) supersede(tx Tx, by envelope.UUID, now envelope.Time) error {
	why := "upgrade " + string(by) + " is live in its place"
	switch {
	case d.unratified():
		why = "nobody ratified it in time; " + why
	case d.report != nil:
		why = "its canary failed; " + why
	}
	return d.complete(tx, "superseded", why, now)
}

// unratified says that an upgrade is an emergency without its ratification.
func (d *dossier) unratified() bool {
	return d.Case == upgrade.CaseEmergency && d.ratification == nil
}
