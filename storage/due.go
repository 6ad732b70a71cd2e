package storage

import (
	"database/sql"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// dueRows chooses rows with work that nobody has claimed: $1 is now, $2 the end
// of a claim made now, $3 a limit.
const dueRows = " FROM upgrades WHERE next_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1 OR claimed_until > $2) ORDER BY next_at, id LIMIT $3"

// Due are upgrades that the engine has work with now, the oldest first.
func (r *reader) Due(now, until envelope.Time, limit int) ([]workflow.Upgrade, error) {
	return collect(r, scanUpgrade, "SELECT "+upgradeColumns+dueRows, now.Unix(), until.Unix(), limit)
}

// Claim takes due upgrades for one instance.
func (w *writer) Claim(now, until envelope.Time, instance string, limit int) ([]workflow.Upgrade, error) {
	query := "WITH due AS (SELECT id" + dueRows + ") UPDATE upgrades SET claimed_by = $4, claimed_until = $2 WHERE id IN (SELECT id FROM due) RETURNING " + upgradeColumns
	return collect(&w.reader, scanUpgrade, query, now.Unix(), until.Unix(), limit, instance)
}

// Renew extends a claim.
func (w *writer) Renew(id envelope.UUID, instance string, until envelope.Time) error {
	result, err := w.tx.ExecContext(w.ctx, "UPDATE upgrades SET claimed_until = $1 WHERE id = $2 AND claimed_by = $3", until.Unix(), string(id), instance)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = workflow.ErrNotFound
	}
	return err
}

// Release gives up all of an instance's claims.
func (w *writer) Release(instance string) error {
	_, err := w.tx.ExecContext(w.ctx, "UPDATE upgrades SET claimed_by = NULL, claimed_until = NULL WHERE claimed_by = $1", instance)
	return err
}

// Wake makes every upgrade in one of the states due.
func (w *writer) Wake(now envelope.Time, states []workflow.State) error {
	if len(states) == 0 {
		return nil
	}
	var args arguments
	query := "UPDATE upgrades SET next_at = " + args.add(now.Unix()) + " WHERE state IN (" + listOf(&args, states) + ")"
	_, err := w.tx.ExecContext(w.ctx, query, args.values...)
	return err
}

// Spent is what was applied at a target in a month, by currency.
func (r *reader) Spent(target envelope.ID, month string) ([]upgrade.Cost, error) {
	return collect(r, func(rows *sql.Rows) (c upgrade.Cost, err error) {
		err = rows.Scan(&c.Currency, &c.MinorUnits)
		return c, err
	}, "SELECT currency, minor_units FROM spending WHERE target = $1 AND month = $2 ORDER BY currency", string(target), month)
}

// AddSpent adds to a month's sum. Both are at most 2^53, so nothing wraps.
func (w *writer) AddSpent(target envelope.ID, month string, c upgrade.Cost) error {
	if err := envelope.CheckInt("cost", c.MinorUnits, 0, envelope.MaxInt); err != nil {
		return err
	}
	_, err := w.tx.ExecContext(w.ctx, "INSERT INTO spending (target, month, currency, minor_units) VALUES ($1, $2, $3, $4)"+
		" ON CONFLICT (target, month, currency) DO UPDATE SET minor_units ="+
		" CASE WHEN spending.minor_units > $5 - excluded.minor_units THEN $5 ELSE spending.minor_units + excluded.minor_units END",
		string(target), month, c.Currency, c.MinorUnits, int64(envelope.MaxInt))
	return err
}
