package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow"
)

func fine(workflow.Reader) error { return nil }

func quiet(string) {}

func opened(t *testing.T, open storagetest.Open) storage.Database {
	t.Helper()
	s, err := open(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(storage.Database)
}

// Copies both ways have every row, with the same digests as a copy of a copy.
func TestCopy(t *testing.T) {
	ctx := context.Background()
	server := storagetest.Shared(t)
	first := filled(t, sqliteAt(filepath.Join(t.TempDir(), "first.db"))).(storage.Database)
	var before []storage.Table
	for _, name := range []string{"postgres", "postgres again", "sqlite"} {
		next := opened(t, sqliteAt(filepath.Join(t.TempDir(), "next.db")))
		if name != "sqlite" {
			next = opened(t, postgresAt(server.Database(t)))
		}
		tables, err := storage.Copy(ctx, first, next, quiet, fine)
		if err != nil {
			t.Fatalf("to %s: %v", name, err)
		}
		for i, table := range tables {
			if table.Rows == 0 {
				t.Errorf("to %s: table %s has no rows, which proves nothing", name, table.Name)
			}
			if before != nil && before[i] != table {
				t.Errorf("to %s: table %s is not what it was: %v, %v", name, table.Name, before[i], table)
			}
		}
		if _, err := storage.Copy(ctx, first, next, quiet, fine); !errors.Is(err, storage.ErrNotEmpty) {
			t.Errorf("over what is there: %v", err)
		}
		before, first = tables, next
	}
	err := first.View(ctx, func(r workflow.Reader) error {
		u, err := r.Upgrade(envelope.UUID("0b7f1d5e-3c1a-4c57-9d0e-000000000001"))
		if u.Intent != "Öffnen" {
			t.Errorf("the intent is %q", u.Intent)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What is refused or fails leaves the target empty.
func TestCopyLeavesNothing(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "first.db")
	from := filled(t, sqliteAt(path)).(storage.Database)
	targets := map[string]storage.Database{
		"postgres": opened(t, postgresAt(storagetest.Shared(t).Database(t))),
		"sqlite":   opened(t, sqliteAt(filepath.Join(t.TempDir(), "to.db"))),
	}
	no := errors.New("no")
	for name, to := range targets {
		if _, err := storage.Copy(ctx, from, to, quiet, func(r workflow.Reader) error {
			if size, err := r.LogSize(); err != nil || size != 1 {
				t.Errorf("%s: the check sees %d events: %v", name, size, err)
			}
			return no
		}); !errors.Is(err, no) {
			t.Errorf("%s: an objection is passed over: %v", name, err)
		}
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE more (a TEXT)"); err != nil {
		t.Fatal(err)
	}
	for name, to := range targets {
		if _, err := storage.Copy(ctx, from, to, quiet, fine); err == nil || !strings.Contains(err.Error(), "table more") {
			t.Errorf("%s: a table would be left behind: %v", name, err)
		}
	}
	if _, err := db.Exec("DROP TABLE more"); err != nil {
		t.Fatal(err)
	}
	for name, to := range targets {
		if _, err := storage.Copy(ctx, from, to, quiet, fine); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
}
