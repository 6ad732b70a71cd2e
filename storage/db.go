package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

//go:embed migrations
var migrations embed.FS

// db is what both stores are. One goroutine writes; it puts what waits into one
// transaction, so that many callers share one commit.
type db struct {
	dialect
	limits
	write, read *sql.DB
	now         func() time.Time
	queue       chan job
	toSign      chan *pendingEvent
	done        chan struct{}
	stop        context.CancelFunc

	mu  sync.RWMutex
	key eventKey
}

// dialect is what the two databases do differently.
type dialect interface {
	// begin starts a transaction beside which nobody else writes.
	begin(ctx context.Context, write *sql.DB) (*sql.Tx, attempt, error)
	// statements is the context of a transaction's statements, given the
	// transaction's own.
	statements(ctx context.Context) context.Context
	// undone says of an error, a caller's too, that by it the server undid the
	// transaction, and that the same may succeed in another one.
	undone(err error) bool
	// lost says it also of a connection that is gone: of errors in the store's
	// own steps alone, since a caller's may look the same.
	lost(err error) bool
	// outcome asks whether a transaction was committed that ended in an error.
	outcome(ctx context.Context, write *sql.DB, a attempt) (committed bool, err error)
	// snapshot is how to begin a transaction that reads one state.
	snapshot() *sql.TxOptions
	// prepareCopy gives a transaction the time that a copy takes, and refuses a
	// schema with tables that are not known.
	prepareCopy(ctx context.Context, tx *sql.Tx) error
	// treeHashes selects idx and hash of these rows of the tree.
	treeHashes(indexes []int64) (query string, args []any)
}

// attempt is one transaction to a dialect, of which outcome can be asked once
// it has an xid.
type attempt struct {
	number int64
	xid    string
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

// start begins to take writes.
func start(d dialect, write, read *sql.DB, now func() time.Time) *db {
	running, stop := context.WithCancel(context.Background())
	s := &db{
		dialect: d, limits: defaults, write: write, read: read, now: now, stop: stop,
		queue: make(chan job, maxBatch), toSign: make(chan *pendingEvent, maxBatch), done: make(chan struct{}),
	}
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for p := range s.toSign {
				p.sign()
			}
		}()
	}
	go s.run(running)
	return s
}

// migrate brings the schema up to date by the files of a folder.
func migrate(ctx context.Context, d goose.Dialect, database *sql.DB, folder string, options ...goose.ProviderOption) error {
	files, err := fs.Sub(migrations, "migrations/"+folder)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(d, database, files, options...)
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
func (s *db) SetEventKey(kernelID envelope.ID, key signer.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = eventKey{kernelID, key}
}

func (s *db) eventKey() eventKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.key
}

// Close finishes what is being written and closes the database.
func (s *db) Close() error {
	s.stop()
	<-s.done
	return errors.Join(s.read.Close(), s.write.Close())
}

// View reads one snapshot. What f reads must take no longer than viewTime.
func (s *db) View(ctx context.Context, f func(workflow.Reader) error) error {
	limited, cancel := context.WithTimeout(ctx, s.viewTime)
	defer cancel()
	err := s.view(limited, f)
	if err != nil && s.lost(err) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", workflow.ErrStoreUnavailable, err)
	}
	return err
}

func (s *db) view(ctx context.Context, f func(workflow.Reader) error) error {
	tx, err := s.read.BeginTx(ctx, s.snapshot())
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(&reader{ctx, &session{Tx: tx}, s.dialect})
}
