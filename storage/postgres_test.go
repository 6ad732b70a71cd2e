package storage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/storagetest"
)

func TestPostgres(t *testing.T) {
	server := storagetest.Shared(t)
	storagetest.Run(t, true, func(t *testing.T) storagetest.Open { return postgresAt(server.Database(t)) })
}

func postgresAt(url string) storagetest.Open {
	return func(now func() time.Time) (storagetest.Store, error) {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		return storage.OpenPostgres(context.Background(), config, now)
	}
}

// What was accepted cannot be changed by mistake, nor by a session that
// replicates, nor by TRUNCATE, which asks no row's trigger.
func TestPostgresAppendOnly(t *testing.T) {
	ctx := context.Background()
	url := storagetest.Shared(t).Database(t)
	filled(t, postgresAt(url))
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	_, tables := storagetest.Tables()
	for _, role := range []string{"origin", "replica"} {
		if _, err := c.Exec(ctx, "SET session_replication_role = "+role); err != nil {
			t.Fatal(err)
		}
		for table, column := range tables {
			for _, statement := range []string{
				"UPDATE " + table + " SET " + column + " = " + column,
				"DELETE FROM " + table,
				"TRUNCATE " + table,
			} {
				if _, err := c.Exec(ctx, statement); err == nil || !strings.Contains(err.Error(), "append-only") {
					t.Errorf("%s as %s: %v", statement, role, err)
				}
			}
		}
	}
}
