package storage

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"iter"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

// Database is a store of this package, SQLite or Postgres.
type Database interface {
	workflow.Store
	account.Store
	SetEventKey(kernelID envelope.ID, key signer.Signer)
	Leaves(ctx context.Context, end int64) iter.Seq2[[]byte, error]
	Close() error
	database() *db
}

func (s *db) database() *db { return s }

// tables are all of the schema, with the columns by which their rows have an
// order.
var tables = []struct{ name, key string }{
	{"upgrades", "id"}, {"targets", "name"}, {"spending", "target, month, currency"}, {"records", "seq"}, {"registry", "version"},
	{"suspensions", "seq"}, {"events", "seq"}, {"tree", "idx"}, {"checkpoints", "size"}, {"cosigned", "size, witness"},
	{"cursors", "follower"}, {"accounts", "person"}, {"secrets", "hash"},
}

// Table is what was copied of one table: how many rows, and SHA-256 over all of
// their values in the order of the key.
type Table struct {
	Name   string
	Rows   int64
	Digest [sha256.Size]byte
}

// ErrNotEmpty says that a database to copy into has rows already.
var ErrNotEmpty = errors.New("the database is not empty")

// Copy copies everything from one database into another, which must be empty,
// whatever kind each is. It reads one state of from, also while gateways write
// there. It writes one transaction, and commits it once every table, read back,
// has the rows and the digest that were read, and check, which sees what was
// written, has no objection; otherwise to stays empty. progress is told about
// each table before it is copied.
func Copy(ctx context.Context, from, to Database, progress func(table string), check func(workflow.Reader) error) ([]Table, error) {
	source, target := from.database(), to.database()
	in, err := source.read.BeginTx(ctx, source.snapshot())
	if err != nil {
		return nil, err
	}
	defer in.Rollback()
	out, _, err := target.begin(ctx, target.write)
	if err != nil {
		return nil, err
	}
	defer out.Rollback()
	for _, side := range []struct {
		*db
		tx *sql.Tx
	}{{source, in}, {target, out}} {
		if err := side.prepareCopy(ctx, side.tx); err != nil {
			return nil, err
		}
	}
	if err := checkEmpty(ctx, out); err != nil {
		return nil, err
	}
	var copied []Table
	for _, table := range tables {
		progress(table.name)
		t, err := copyTable(ctx, in, out, table.name, table.key)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", table.name, err)
		}
		copied = append(copied, t)
	}
	if err := check(&reader{ctx, &session{Tx: out}, target.dialect}); err != nil {
		return nil, err
	}
	return copied, out.Commit()
}

func checkEmpty(ctx context.Context, tx *sql.Tx) error {
	for _, table := range tables {
		var some bool
		query := "SELECT EXISTS (SELECT 1 FROM " + table.name + ")"
		if err := tx.QueryRowContext(ctx, query).Scan(&some); err != nil {
			return err
		}
		if some {
			return fmt.Errorf("%w: table %s has rows", ErrNotEmpty, table.name)
		}
	}
	return nil
}

// checkTables refuses a schema with a table that a copy would leave behind.
func checkTables(ctx context.Context, tx *sql.Tx, query string) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		known := slices.ContainsFunc(tables, func(t struct{ name, key string }) bool { return t.name == name })
		if !known && !strings.HasPrefix(name, "goose_") && !strings.HasPrefix(name, "sqlite_") {
			return fmt.Errorf("there is a table %s, which this version does not know and would leave behind", name)
		}
	}
	return rows.Err()
}

func copyTable(ctx context.Context, in, out *sql.Tx, name, key string) (Table, error) {
	columns, err := columnsOf(ctx, out, name)
	if err != nil {
		return Table{}, err
	}
	there, err := columnsOf(ctx, in, name)
	if err != nil {
		return Table{}, err
	}
	if slices.Sort(there); !slices.Equal(columns, there) {
		return Table{}, fmt.Errorf("one has the columns %s, the other %s", there, columns)
	}
	read := "SELECT " + strings.Join(columns, ", ") + " FROM " + name + " ORDER BY " + key
	t, insert := Table{Name: name}, inserter{ctx: ctx, tx: out, into: name + " (" + strings.Join(columns, ", ") + ")", columns: len(columns)}
	if t.Rows, t.Digest, err = digestRows(ctx, in, read, len(columns), insert.add); err != nil {
		return t, err
	}
	if err := insert.flush(); err != nil {
		return t, err
	}
	rows, digest, err := digestRows(ctx, out, read, len(columns), func([]any) error { return nil })
	if err == nil && (rows != t.Rows || digest != t.Digest) {
		err = fmt.Errorf("%d rows, digest %x, were read, and %d, %x, came back", t.Rows, t.Digest, rows, digest)
	}
	return t, err
}

// columnsOf are a table's columns, sorted.
func columnsOf(ctx context.Context, tx *sql.Tx, name string) ([]string, error) {
	query := "SELECT * FROM " + name + " LIMIT 0" //nolint:gosec // a constant of tables
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	slices.Sort(columns)
	return columns, errors.Join(err, rows.Err())
}

// digestRows hands each row to use, and counts and hashes them all.
func digestRows(ctx context.Context, tx *sql.Tx, query string, columns int, use func([]any) error) (n int64, digest [sha256.Size]byte, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return 0, digest, err
	}
	defer rows.Close()
	sum := sha256.New()
	for ; rows.Next(); n++ {
		values, targets := make([]any, columns), make([]any, columns)
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return n, digest, err
		}
		for _, v := range values {
			if err := hashValue(sum, v); err != nil {
				return n, digest, err
			}
		}
		if err := use(values); err != nil {
			return n, digest, err
		}
	}
	return n, [sha256.Size]byte(sum.Sum(nil)), rows.Err()
}

// hashValue writes a value's kind, its length where it has one, and its bytes.
func hashValue(sum hash.Hash, value any) error {
	var b []byte
	switch v := value.(type) {
	case nil:
		b = []byte{'n'}
	case int64:
		b = binary.BigEndian.AppendUint64([]byte{'i'}, uint64(v))
	case string:
		b = append(binary.BigEndian.AppendUint64([]byte{'t'}, uint64(len(v))), v...)
	case []byte:
		b = append(binary.BigEndian.AppendUint64([]byte{'b'}, uint64(len(v))), v...)
	default:
		return fmt.Errorf("a value is of type %T", value)
	}
	_, err := sum.Write(b)
	return err
}

// inserter inserts rows, many in one statement.
type inserter struct {
	ctx     context.Context
	tx      *sql.Tx
	into    string
	columns int
	values  []any
}

func (i *inserter) add(row []any) error {
	if i.values = append(i.values, row...); len(i.values) < insertRows*i.columns {
		return nil
	}
	return i.flush()
}

func (i *inserter) flush() error {
	if len(i.values) == 0 {
		return nil
	}
	err := insertInto(i.ctx, i.tx, i.into, i.columns, i.values)
	i.values = i.values[:0]
	return err
}
