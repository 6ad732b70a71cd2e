package storage_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/storagetest"
)

func TestSQLite(t *testing.T) {
	storagetest.Run(t, false, func(t *testing.T) storagetest.Open {
		return sqliteAt(filepath.Join(t.TempDir(), "a file?with #odd name.db"))
	})
}

func sqliteAt(path string) storagetest.Open {
	return func(now func() time.Time) (storagetest.Store, error) {
		return storage.OpenSQLite(context.Background(), path, now)
	}
}

// filled is a store with a row in every table.
func filled(t *testing.T, open storagetest.Open) storagetest.Store {
	t.Helper()
	s, err := open(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	if err := storagetest.Fill(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// What was accepted cannot be changed by mistake, nor by INSERT OR REPLACE,
// which asks no DELETE trigger.
func TestSQLiteAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernelgate.db")
	filled(t, sqliteAt(path))
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, tables := storagetest.Tables()
	for table, column := range tables {
		for _, statement := range []string{
			"UPDATE " + table + " SET " + column + " = " + column,
			"DELETE FROM " + table,
			"INSERT OR REPLACE INTO " + table + " SELECT * FROM " + table,
		} {
			if _, err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
}
