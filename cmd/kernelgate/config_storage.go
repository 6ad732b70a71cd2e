package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

// Database is where the workflow's state and the log are kept.
type Database struct {
	URL          string `yaml:"url"`          // a path, sqlite:PATH, or postgres://USER@HOST/NAME
	PasswordFile string `yaml:"passwordFile"` // of PostgreSQL; without it PGPASSFILE and ~/.pgpass count
}

func (d *Database) settle(c *Config) error {
	if d.PasswordFile != "" {
		d.PasswordFile = c.path(d.PasswordFile)
	}
	if d.server() {
		_, err := d.session()
		return err
	}
	path := strings.TrimPrefix(d.URL, "sqlite:")
	if scheme, _, found := strings.Cut(path, "://"); found {
		return fmt.Errorf("url: %s is not a database that this version knows; name a file, as in sqlite:kernelgate.db, or postgres://USER@HOST/NAME", scheme)
	}
	d.URL = c.data(path, "kernelgate.db")
	return nil
}

// server says whether it is PostgreSQL; otherwise URL is a file's path.
func (d *Database) server() bool {
	return strings.HasPrefix(d.URL, "postgres://") || strings.HasPrefix(d.URL, "postgresql://")
}

// session is how to connect to PostgreSQL. Over a network nothing but TLS with
// the server's name verified is taken: what a database says is believed.
func (d *Database) session() (*pgx.ConnConfig, error) {
	u, err := url.Parse(d.URL)
	if err != nil {
		return nil, errors.New("url: it is not a URL of the form postgres://USER@HOST/NAME") // its text may hold a password
	}
	query := u.Query()
	if _, set := u.User.Password(); set || query.Has("password") {
		return nil, errors.New("url: no password belongs in it; write it to a file that only the gateway can read, and name that in database.passwordFile")
	}
	if !query.Has("target_session_attrs") {
		query.Set("target_session_attrs", "read-write")
	}
	if mode := query.Get("sslmode"); !local(u, query) {
		switch mode {
		case "":
			query.Set("sslmode", "verify-full")
		case "verify-full", "verify-ca":
		default:
			return nil, fmt.Errorf("url: sslmode=%s does not verify the server; over a network use verify-full (with sslrootcert=FILE where its CA is not the system's)", mode)
		}
	}
	u.RawQuery = query.Encode()
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if d.PasswordFile != "" {
		if info, err := os.Stat(d.PasswordFile); err == nil && info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("passwordFile: others may read %s: chmod 600 it", d.PasswordFile)
		}
		password, err := readBounded(d.PasswordFile, 4096)
		if err != nil {
			return nil, fmt.Errorf("passwordFile: %w", err)
		}
		config.Password = strings.TrimRight(string(password), "\r\n")
	}
	return config, nil
}

// local: every host is this machine's, by socket or loopback.
func local(u *url.URL, query url.Values) bool {
	hosts := strings.Split(u.Host, ",")
	if query.Has("host") {
		hosts = strings.Split(query.Get("host"), ",")
	}
	for _, host := range hosts {
		name, _, err := net.SplitHostPort(host)
		if err != nil {
			name = strings.Trim(host, "[]")
		}
		ip := net.ParseIP(name)
		if name != "" && !strings.HasPrefix(name, "/") && name != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// store is what the gateway needs of a database.
type store interface {
	workflow.Store
	account.Store
	SetEventKey(kernelID envelope.ID, key signer.Signer)
	Close() error
}

// openStore opens the configured database for a gateway.
func openStore(ctx context.Context, c *Config) (s store, release func() error, err error) {
	return c.Database.alone(ctx, c)
}

// alone opens a file for this process alone, and a server for as many gateways
// as there are, each with its own instance name. release comes after the
// store's Close.
func (d *Database) alone(ctx context.Context, c *Config) (db storage.Database, release func() error, err error) {
	release = func() error { return nil }
	if !d.server() {
		if err := os.MkdirAll(filepath.Dir(d.URL), 0o700); err != nil {
			return nil, nil, fmt.Errorf("database: %w", err)
		}
		if release, err = lock(d.URL+".lock", "another gateway uses the database "+d.URL); err != nil {
			return nil, nil, err
		}
	}
	if db, err = d.open(ctx); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	if server, ok := db.(*storage.Postgres); ok {
		if release, err = server.Hold(ctx, c.Instance); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
		}
	}
	return db, release, nil
}

// open opens the database, whoever else uses it.
func (d *Database) open(ctx context.Context) (storage.Database, error) {
	if !d.server() {
		db, err := storage.OpenSQLite(ctx, d.URL, time.Now)
		if err != nil {
			return nil, fmt.Errorf("database %s: %w", d.URL, err)
		}
		return db, nil
	}
	config, err := d.session()
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	db, err := storage.OpenPostgres(ctx, config, time.Now)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", d.URL, err)
	}
	return db, nil
}

// openAccounts opens the database beside a gateway that may be running: for
// accounts alone, which no other row depends on, and for reading.
func openAccounts(ctx context.Context, c *Config) (storage.Database, error) {
	if !c.Database.server() {
		if _, err := os.Stat(c.Database.URL); err != nil {
			return nil, fmt.Errorf("database: %w; kernelgate init makes it", err)
		}
	}
	return c.Database.open(ctx)
}
