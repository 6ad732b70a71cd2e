package storage

import (
	"context"
	"database/sql"
	"strings"
)

// session is a transaction that remembers what a caller did in it: whether it
// wrote, and whether the database refused a statement.
type session struct {
	*sql.Tx
	wrote, failed bool
}

// ExecContext notes a write.
func (s *session) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s.wrote = true
	result, err := s.Tx.ExecContext(ctx, query, args...)
	s.failed = s.failed || err != nil
	return result, err
}

// QueryContext notes a write that returns rows.
func (s *session) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s.wrote = s.wrote || !strings.HasPrefix(query, "SELECT ")
	rows, err := s.Tx.QueryContext(ctx, query, args...)
	s.failed = s.failed || err != nil
	return rows, err
}

// QueryRowContext notes a write that returns a row.
func (s *session) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s.wrote = s.wrote || !strings.HasPrefix(query, "SELECT ")
	row := s.Tx.QueryRowContext(ctx, query, args...)
	s.failed = s.failed || row.Err() != nil
	return row
}
