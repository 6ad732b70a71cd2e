// Package storage keeps the workflow's state, the records of people and the
// audit log in SQLite, behind workflow.Store. Records, events, the tree and
// checkpoints are append-only against mistakes: triggers refuse every change.
// Against an administrator they are tamper-evident to whoever kept a checkpoint.
package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"github.com/pressly/goose/v3"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SQLite is a workflow.Store in one file. One goroutine writes; it puts what
// waits into one transaction, so that many callers share one fsync.
type SQLite struct {
	write, read *sql.DB
	now         func() time.Time
	queue       chan job
	done        chan struct{}
	stop        context.CancelFunc

	mu  sync.RWMutex
	key eventKey
}

// eventKey is what signs events now.
type eventKey struct {
	kernelID envelope.ID
	signer   signer.Signer
}

// ErrNoEventKey says that an event was to be appended before SetEventKey: the
// guard, which delegates to the key, has not answered yet.
var ErrNoEventKey = fmt.Errorf("%w: the audit log has no event key yet", workflow.ErrGuardUnavailable)

// ErrClosed says that the store was closed, or is closing.
var ErrClosed = errors.New("the store is closed")

// OpenSQLite opens or makes the database file and brings its schema up to date.
func OpenSQLite(ctx context.Context, path string, now func() time.Time) (*SQLite, error) {
	write, err := open(path, "immediate", 1)
	if err != nil {
		return nil, err
	}
	s := &SQLite{write: write, now: now, queue: make(chan job, maxBatch), done: make(chan struct{})}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	if s.read, err = open(path, "deferred", 8); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	running, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.run(running)
	return s, nil
}

func open(path, txlock string, connections int) (*sql.DB, error) {
	options := url.Values{
		"_txlock": {txlock}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_busy_timeout": {"10000"}, "_foreign_keys": {"on"},
		"_stmt_cache_size": {"64"},
	}
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	return db, nil
}

func (s *SQLite) prepare(ctx context.Context) error {
	// The driver's defaults lose acknowledged writes; what it was told is read back.
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := s.write.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
		if got != want {
			return fmt.Errorf("open the database: PRAGMA %s is %s, not %s", pragma, got, want)
		}
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the database up to date: %w", err)
	}
	return nil
}

// SetEventKey says who signs events from now on: an Ed25519 key in memory that
// the guard delegated.
func (s *SQLite) SetEventKey(kernelID envelope.ID, key signer.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = eventKey{kernelID, key}
}

func (s *SQLite) eventKey() eventKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.key
}

// Close finishes what is being written and closes the file.
func (s *SQLite) Close() error {
	s.stop()
	<-s.done
	return errors.Join(s.read.Close(), s.write.Close())
}

// View reads one snapshot.
func (s *SQLite) View(ctx context.Context, f func(workflow.Reader) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(&reader{ctx, tx})
}
