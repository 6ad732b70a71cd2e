package storage

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

var _ account.Store = (*db)(nil)

func scanAccount(rows *sql.Rows) (a account.Account, err error) {
	err = rows.Scan(&a.Person, &a.Role, &a.Passkeys)
	return a, err
}

// Account implements account.Store.
func (s *db) Account(ctx context.Context, person envelope.ID) (a account.Account, err error) {
	err = s.View(ctx, func(r workflow.Reader) error {
		row := r.(*reader).tx.QueryRowContext(ctx, "SELECT person, role, passkeys FROM accounts WHERE person = $1", string(person))
		return notFound(row.Scan(&a.Person, &a.Role, &a.Passkeys))
	})
	return a, err
}

// Accounts implements account.Store.
func (s *db) Accounts(ctx context.Context) (list []account.Account, err error) {
	err = s.View(ctx, func(r workflow.Reader) error {
		list, err = collect(r.(*reader), scanAccount, "SELECT person, role, passkeys FROM accounts ORDER BY person")
		return err
	})
	return list, err
}

// ChangeAccount implements account.Store.
func (s *db) ChangeAccount(ctx context.Context, person envelope.ID, invitation string, f func(a *account.Account, exists bool) error) error {
	return s.Update(ctx, func(tx workflow.Tx) error {
		w := tx.(*writer)
		if invitation != "" {
			if _, err := w.take(ctx, account.Invitation, invitation, s.now()); err != nil {
				return err
			}
		}
		a := account.Account{Person: person}
		err := w.tx.QueryRowContext(ctx, "SELECT role, passkeys FROM accounts WHERE person = $1", string(person)).Scan(&a.Role, &a.Passkeys)
		exists := err == nil
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := f(&a, exists); err != nil {
			return err
		}
		_, err = w.tx.ExecContext(ctx, "INSERT INTO accounts (person, role, passkeys) VALUES ($1, $2, $3) ON CONFLICT (person) DO UPDATE SET role = excluded.role, passkeys = excluded.passkeys",
			string(person), a.Role, a.Passkeys)
		return err
	})
}

// DropAccount implements account.Store.
func (s *db) DropAccount(ctx context.Context, person envelope.ID) error {
	return s.Update(ctx, func(tx workflow.Tx) error {
		w := tx.(*writer)
		if _, err := w.tx.ExecContext(ctx, "DELETE FROM secrets WHERE person = $1", string(person)); err != nil {
			return err
		}
		_, err := w.tx.ExecContext(ctx, "DELETE FROM accounts WHERE person = $1", string(person))
		return err
	})
}

// PutSecret implements account.Store. Secrets past their end go with it.
func (s *db) PutSecret(ctx context.Context, kind account.Kind, hash string, person envelope.ID, body []byte, until time.Time) error {
	return s.ChangeSecret(ctx, kind, hash, person, until, func([]byte) ([]byte, error) { return body, nil })
}

// ChangeSecret implements account.Store.
func (s *db) ChangeSecret(ctx context.Context, kind account.Kind, hash string, person envelope.ID, until time.Time, f func(body []byte) ([]byte, error)) error {
	return s.Update(ctx, func(tx workflow.Tx) error {
		w := tx.(*writer)
		now := s.now().Unix()
		body, _, err := w.secret(kind, hash, now)
		if err != nil && !errors.Is(err, workflow.ErrNotFound) {
			return err
		}
		if body, err = f(body); err != nil {
			return err
		}
		if _, err := w.tx.ExecContext(ctx, "DELETE FROM secrets WHERE until <= $1", now); err != nil {
			return err
		}
		result, err := w.tx.ExecContext(ctx, putSecret, hash, string(kind), string(person), body, until.Unix())
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n == 0 {
			err = account.ErrOtherKind
		}
		return err
	})
}

const putSecret = "INSERT INTO secrets (hash, kind, person, body, until) VALUES ($1, $2, $3, $4, $5)" +
	" ON CONFLICT (hash) DO UPDATE SET person = excluded.person, body = excluded.body, until = excluded.until WHERE secrets.kind = excluded.kind"

// Secret implements account.Store.
func (s *db) Secret(ctx context.Context, kind account.Kind, hash string) (body []byte, until time.Time, err error) {
	err = s.View(ctx, func(r workflow.Reader) (err error) {
		body, until, err = r.(*reader).secret(kind, hash, s.now().Unix())
		return err
	})
	return body, until, err
}

func (r *reader) secret(kind account.Kind, hash string, now int64) (body []byte, until time.Time, err error) {
	var end int64
	query := "SELECT body, until FROM secrets WHERE hash = $1 AND kind = $2 AND until > $3"
	err = r.tx.QueryRowContext(r.ctx, query, hash, string(kind), now).Scan(&body, &end)
	return body, time.Unix(end, 0), notFound(err)
}

// TakeSecret implements account.Store.
func (s *db) TakeSecret(ctx context.Context, kind account.Kind, hash string) (body []byte, err error) {
	err = s.Update(ctx, func(tx workflow.Tx) error {
		body, err = tx.(*writer).take(ctx, kind, hash, s.now())
		return err
	})
	return body, err
}

func (w *writer) take(ctx context.Context, kind account.Kind, hash string, now time.Time) (body []byte, err error) {
	row := w.tx.QueryRowContext(ctx, "DELETE FROM secrets WHERE hash = $1 AND kind = $2 AND until > $3 RETURNING body", hash, string(kind), now.Unix())
	return body, notFound(row.Scan(&body))
}
