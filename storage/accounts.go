package storage

import (
	"context"
	"database/sql"
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

// PutAccount implements account.Store.
func (s *db) PutAccount(ctx context.Context, a account.Account) error {
	return s.exec(ctx, "INSERT INTO accounts (person, role, passkeys) VALUES ($1, $2, $3) ON CONFLICT (person) DO UPDATE SET role = excluded.role, passkeys = excluded.passkeys",
		string(a.Person), a.Role, a.Passkeys)
}

// DropAccount implements account.Store.
func (s *db) DropAccount(ctx context.Context, person envelope.ID) error {
	return s.exec(ctx, "DELETE FROM accounts WHERE person = $1", string(person))
}

// PutSecret implements account.Store. Secrets past their end go with it.
func (s *db) PutSecret(ctx context.Context, kind account.Kind, hash string, body []byte, until time.Time) error {
	if err := s.exec(ctx, "DELETE FROM secrets WHERE until <= $1", s.now().Unix()); err != nil {
		return err
	}
	return s.exec(ctx, "INSERT INTO secrets (hash, kind, body, until) VALUES ($1, $2, $3, $4) ON CONFLICT (hash) DO UPDATE SET body = excluded.body, until = excluded.until WHERE secrets.kind = excluded.kind",
		hash, string(kind), body, until.Unix())
}

const findSecret = "SELECT body, until FROM secrets WHERE hash = $1 AND kind = $2 AND until > $3"

// Secret implements account.Store.
func (s *db) Secret(ctx context.Context, kind account.Kind, hash string) (body []byte, until time.Time, err error) {
	err = s.View(ctx, func(r workflow.Reader) error {
		var end int64
		row := r.(*reader).tx.QueryRowContext(ctx, findSecret, hash, string(kind), s.now().Unix())
		err := notFound(row.Scan(&body, &end))
		until = time.Unix(end, 0)
		return err
	})
	return body, until, err
}

// TakeSecret implements account.Store.
func (s *db) TakeSecret(ctx context.Context, kind account.Kind, hash string) (body []byte, err error) {
	err = s.Update(ctx, func(tx workflow.Tx) error {
		w := tx.(*writer)
		row := w.tx.QueryRowContext(ctx, "DELETE FROM secrets WHERE hash = $1 AND kind = $2 AND until > $3 RETURNING body", hash, string(kind), s.now().Unix())
		return notFound(row.Scan(&body))
	})
	return body, err
}

func (s *db) exec(ctx context.Context, query string, args ...any) error {
	return s.Update(ctx, func(tx workflow.Tx) error {
		_, err := tx.(*writer).tx.ExecContext(ctx, query, args...)
		return err
	})
}
