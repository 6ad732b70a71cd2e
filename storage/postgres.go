package storage

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Postgres is a workflow.Store in a PostgreSQL database, of any number of
// processes. Write transactions of all of them come one after the other: who
// writes holds one advisory lock, so that everybody reads what the one before
// committed and the log has one end.
type Postgres struct{ *db }

// settings of every session. A session that ends its host's life in the middle
// of a transaction holds the lock no longer than idle_in_transaction_session_timeout.
var settings = map[string]string{
	"application_name":                    "kernelgate",
	"statement_timeout":                   "10s",
	"lock_timeout":                        "10s",
	"idle_in_transaction_session_timeout": "10s",
	"synchronous_commit":                  "on",
	"default_transaction_isolation":       "read committed",
	"client_encoding":                     "UTF8",
	// A host that is gone is noticed within half a minute.
	"tcp_keepalives_idle":     "10",
	"tcp_keepalives_interval": "5",
	"tcp_keepalives_count":    "3",
}

// OpenPostgres connects to a database and brings its schema up to date. The
// configuration is pgx.ParseConfig's; it should name a server that takes writes
// (target_session_attrs=read-write) where it names several.
func OpenPostgres(ctx context.Context, config *pgx.ConnConfig, now func() time.Time) (*Postgres, error) {
	write := openSessions(config, 1)
	if err := prepareServer(ctx, write); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	if _, err := write.ExecContext(ctx, "DELETE FROM writers WHERE at < EXTRACT(EPOCH FROM now())::bigint - $1", forgotten); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return &Postgres{start(&postgresDialect{id: rand.Text()}, write, openSessions(config, 8), now)}, nil
}

func openSessions(config *pgx.ConnConfig, connections int) *sql.DB {
	c := config.Copy()
	for name, value := range settings {
		c.RuntimeParams[name] = value
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	sessions := stdlib.OpenDB(*c)
	sessions.SetMaxOpenConns(connections)
	sessions.SetMaxIdleConns(connections)
	return sessions
}

// oldestServer is the first version that has pg_current_xact_id.
const oldestServer = 130000

// prepareServer refuses a server that would lose what it has acknowledged.
func prepareServer(ctx context.Context, write *sql.DB) error {
	var version int
	var durable, flushed, torn, encoding string
	query := "SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding')"
	if err := write.QueryRowContext(ctx, query).Scan(&version, &durable, &flushed, &torn, &encoding); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	switch {
	case version < oldestServer:
		return fmt.Errorf("open the database: PostgreSQL %d is too old; 13 is the first that will do", version/10000)
	case durable != "on" || flushed != "on" || torn != "on":
		return fmt.Errorf("open the database: synchronous_commit, fsync and full_page_writes are %s, %s, %s; with one of them not on it would lose what it has acknowledged", durable, flushed, torn)
	case encoding != "UTF8":
		return fmt.Errorf("open the database: its encoding is %s, not UTF8", encoding)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	return migrate(ctx, goose.DialectPostgres, write, "postgres", goose.WithSessionLocker(locker))
}

// postgresDialect is one writer. Its row in the table writers has the number of
// its last transaction that was committed.
type postgresDialect struct {
	id   string
	last atomic.Int64
}

// writers is the key of the lock that who writes holds: "kernelga" in ASCII.
// Keys are of one database, and another program's would be chance.
const writers int64 = 0x6b65726e656c6761

// forgotten is after how many seconds the row of a writer goes that has not
// written since.
const forgotten = 30 * 86400

const beginWriting = `WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock($1))
INSERT INTO writers (id, number, at) SELECT $2, $3, EXTRACT(EPOCH FROM now())::bigint FROM held
ON CONFLICT (id) DO UPDATE SET number = excluded.number, at = excluded.at RETURNING pg_current_xact_id()::text`

// begin waits for the lock. The transaction reads what is committed at each
// statement, so that it sees all that those before it wrote.
func (d *postgresDialect) begin(ctx context.Context, write *sql.DB) (tx *sql.Tx, a attempt, err error) {
	a.number = d.last.Add(1)
	if tx, err = write.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}); err != nil {
		return nil, a, err
	}
	if err = tx.QueryRowContext(ctx, beginWriting, writers, d.id, a.number).Scan(&a.xid); err != nil {
		_ = tx.Rollback()
		return nil, a, err
	}
	return tx, a, nil
}

// outcome looks whether the transaction's number is in this writer's row. The
// session that had it may live on, if its client was cut off; it is ended, and
// the lock is had first, so that nothing can be committed after the answer.
// PostgreSQL's own pg_xact_status would not do: after a crash it gives the ids
// of transactions that left no trace to others.
func (d *postgresDialect) outcome(ctx context.Context, write *sql.DB, a attempt) (committed bool, err error) {
	tx, err := write.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	for _, step := range []struct {
		query string
		args  []any
	}{
		{"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = ($1::text::xid8)::xid AND usename = current_user", []any{a.xid}},
		{"SELECT pg_advisory_xact_lock($1)", []any{writers}},
	} {
		if _, err := tx.ExecContext(ctx, step.query, step.args...); err != nil {
			return false, err
		}
	}
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM writers WHERE id = $1 AND number = $2)", d.id, a.number).Scan(&committed)
	return committed, err
}

func (*postgresDialect) snapshot() *sql.TxOptions {
	return &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
}

func (*postgresDialect) prepareCopy(ctx context.Context, tx *sql.Tx) error {
	for _, limit := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
		if _, err := tx.ExecContext(ctx, "SET LOCAL "+limit+" = 0"); err != nil {
			return err
		}
	}
	return checkTables(ctx, tx, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'writers'")
}

func (*postgresDialect) treeHashes(indexes []int64) (query string, args []any) {
	return "SELECT idx, hash FROM tree WHERE idx = ANY($1)", []any{indexes}
}

// passing are the classes and codes of errors (PostgreSQL's appendix A) that
// undid the transaction and need not come again.
var passing = []string{
	"08",    // connection
	"40",    // serialisation, deadlock
	"53",    // out of something: connections, memory, disk
	"57",    // the server was told to stop, or the statement took too long
	"25P03", // idle in a transaction for too long
	"25006", // a standby, or not yet the primary
	"55P03", // a lock was not to be had in time
}

func (*postgresDialect) statements(ctx context.Context) context.Context { return ctx }

func (*postgresDialect) undone(err error) bool {
	refused := new(pgconn.PgError)
	return errors.As(err, &refused) && slices.ContainsFunc(passing, func(code string) bool { return strings.HasPrefix(refused.Code, code) })
}

// aborted: somebody passed over an error, after which PostgreSQL refuses all
// that follows in the transaction, and turns its commit into a rollback.
func aborted(err error) bool {
	refused := new(pgconn.PgError)
	return errors.As(err, &refused) && refused.Code == "25P02" || errors.Is(err, pgx.ErrTxCommitRollback)
}

func (d *postgresDialect) lost(err error) bool { return d.undone(err) || disconnected(err) }
