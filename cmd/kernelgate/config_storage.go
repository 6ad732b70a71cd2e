package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

// Database is where the workflow's state and the log are kept.
type Database struct {
	URL string `yaml:"url"` // a path, or sqlite:PATH
}

func (d *Database) settle(c *Config) error {
	path := strings.TrimPrefix(d.URL, "sqlite:")
	if scheme, _, found := strings.Cut(path, "://"); found {
		return fmt.Errorf("url: %s is not a database that this version knows; name a file, as in sqlite:kernelgate.db", scheme)
	}
	d.URL = c.data(path, "kernelgate.db")
	return nil
}

// store is what the gateway needs of a database.
type store interface {
	workflow.Store
	account.Store
	SetEventKey(kernelID envelope.ID, key signer.Signer)
	Close() error
}

// openStore opens the database for this process alone. release comes after
// the store's Close.
func openStore(ctx context.Context, c *Config) (s store, release func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(c.Database.URL), 0o700); err != nil {
		return nil, nil, fmt.Errorf("database: %w", err)
	}
	release, err = lock(c.Database.URL+".lock", "another gateway uses the database "+c.Database.URL)
	if err != nil {
		return nil, nil, err
	}
	db, err := storage.OpenSQLite(ctx, c.Database.URL, time.Now)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("database %s: %w", c.Database.URL, err), release())
	}
	return db, release, nil
}

// openAccounts opens the database beside a gateway that may be running: for
// accounts alone, which no other row depends on.
func openAccounts(ctx context.Context, c *Config) (*storage.SQLite, error) {
	if _, err := os.Stat(c.Database.URL); err != nil {
		return nil, fmt.Errorf("database: %w; kernelgate init makes it", err)
	}
	db, err := storage.OpenSQLite(ctx, c.Database.URL, time.Now)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", c.Database.URL, err)
	}
	return db, nil
}
