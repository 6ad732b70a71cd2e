package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	return &Postgres{start(postgresDialect{}, write, openSessions(config, 8), now)}, nil
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

type postgresDialect struct{}

// writers is the key of the lock that who writes holds: "kernelga" in ASCII.
// Keys are of one database, and another program's would be chance.
const writers int64 = 0x6b65726e656c6761

// begin waits for the lock. The transaction reads what is committed at each
// statement, so that it sees all that those before it wrote.
func (postgresDialect) begin(ctx context.Context, write *sql.DB) (tx *sql.Tx, name string, err error) {
	if tx, err = write.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}); err != nil {
		return nil, "", err
	}
	err = tx.QueryRowContext(ctx, "SELECT pg_current_xact_id()::text FROM pg_advisory_xact_lock($1)", writers).Scan(&name)
	if err != nil {
		_ = tx.Rollback()
		return nil, "", err
	}
	return tx, name, nil
}

// outcome asks for a transaction by its id, which also survives a crash of the
// server. One that is still open has lost its client; it is ended, as it holds
// the lock on which everybody waits.
func (postgresDialect) outcome(ctx context.Context, write *sql.DB, name string) (bool, error) {
	var status sql.NullString
	if err := write.QueryRowContext(ctx, "SELECT pg_xact_status($1::text::xid8)", name).Scan(&status); err != nil {
		return false, err
	}
	switch status.String {
	case "committed":
		return true, nil
	case "aborted":
		return false, nil
	case "in progress":
		var ended bool
		query := "SELECT COALESCE(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity WHERE backend_xid = ($1::text::xid8)::xid"
		return false, errors.Join(errOpen, write.QueryRowContext(ctx, query, name).Scan(&ended))
	}
	return false, fmt.Errorf("the database does not know transaction %s any more", name)
}

// errOpen says that a transaction is neither committed nor undone yet.
var errOpen = errors.New("the transaction is still open")

func (postgresDialect) snapshot() *sql.TxOptions {
	return &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
}

func (postgresDialect) prepareCopy(ctx context.Context, tx *sql.Tx) error {
	for _, limit := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
		if _, err := tx.ExecContext(ctx, "SET LOCAL "+limit+" = 0"); err != nil {
			return err
		}
	}
	return checkTables(ctx, tx, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
}

func (postgresDialect) treeHashes(indexes []int64) (query string, args []any) {
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

func (postgresDialect) undone(err error) bool {
	refused := new(pgconn.PgError)
	return errors.As(err, &refused) && slices.ContainsFunc(passing, func(code string) bool { return strings.HasPrefix(refused.Code, code) })
}

func (d postgresDialect) lost(err error) bool { return d.undone(err) || disconnected(err) }
