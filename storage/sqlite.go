// Package storage keeps the workflow's state, the records of people and the
// audit log in SQLite or PostgreSQL, behind workflow.Store. Records, events, the
// tree and checkpoints are append-only against mistakes: triggers refuse every
// change. Against an administrator they are tamper-evident to whoever kept a
// checkpoint.
package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"github.com/pressly/goose/v3"
)

// SQLite is a workflow.Store in one file, of one process.
type SQLite struct{ *db }

// OpenSQLite opens or makes the database file and brings its schema up to date.
func OpenSQLite(ctx context.Context, path string, now func() time.Time) (*SQLite, error) {
	write, err := openFile(path, "immediate", 1)
	if err != nil {
		return nil, err
	}
	if err := prepareFile(ctx, write); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read, err := openFile(path, "deferred", 8)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return &SQLite{start(sqliteDialect{}, write, read, now)}, nil
}

func openFile(path, txlock string, connections int) (*sql.DB, error) {
	options := url.Values{
		"_txlock": {txlock}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_busy_timeout": {"10000"}, "_foreign_keys": {"on"},
		"_stmt_cache_size": {"64"},
	}
	file, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	file.SetMaxOpenConns(connections)
	return file, nil
}

func prepareFile(ctx context.Context, write *sql.DB) error {
	// The driver's defaults lose acknowledged writes; what it was told is read back.
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := write.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
		if got != want {
			return fmt.Errorf("open the database: PRAGMA %s is %s, not %s", pragma, got, want)
		}
	}
	return migrate(ctx, goose.DialectSQLite3, write, "sqlite")
}

type sqliteDialect struct{}

func (sqliteDialect) begin(ctx context.Context, write *sql.DB) (*sql.Tx, attempt, error) {
	tx, err := write.BeginTx(ctx, nil)
	return tx, attempt{}, err
}

// Under a context that can end the driver runs every statement in a goroutine of
// its own. What a statement waits for here is this machine's disk alone.
func (sqliteDialect) statements(ctx context.Context) context.Context {
	return context.WithoutCancel(ctx)
}

// A transaction in a file of this process is not lost, and its end is known.
func (sqliteDialect) undone(error) bool { return false }

func (sqliteDialect) lost(error) bool { return false }

func (sqliteDialect) outcome(context.Context, *sql.DB, attempt) (bool, error) { return false, nil }

func (sqliteDialect) snapshot() *sql.TxOptions { return &sql.TxOptions{ReadOnly: true} }

func (sqliteDialect) prepareCopy(ctx context.Context, tx *sql.Tx) error {
	return checkTables(ctx, tx, "SELECT name FROM sqlite_schema WHERE type = 'table'")
}

// Numbers only, so that there is nothing to quote; SQLite takes far more terms
// than the 256 of a tile.
func (sqliteDialect) treeHashes(indexes []int64) (query string, args []any) {
	text := []byte("SELECT idx, hash FROM tree WHERE idx IN (")
	for i, index := range indexes {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, index, 10)
	}
	return string(append(text, ')')), nil
}
