package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow"
)

func (a *app) migrateCommand() *cobra.Command {
	var from, to Database
	cmd := a.command("migrate", "Copy the database into another one, of either kind",
		`migrate copies everything from one database into another, which must be empty:
from SQLite to PostgreSQL, say, when one machine is not enough any more. Stop the
gateway first. Every table is read back and compared by its rows and its digest,
and the whole log is verified from root before anything is committed; after a
failure the target is empty. Artifacts and API tokens are not in the database
and stay where they are.

Then name the new database in the configuration (database.url) and start the
gateway. Keep the old one away from gateways: it is not the log any more, and
the guard seals nothing that is not.`,
		`  kernelgate migrate --from sqlite:data/kernelgate.db --to postgres://kernelgate@db/kernelgate --to-password-file db.password`,
		func(ctx context.Context, c *Config) error {
			for _, d := range []*Database{&from, &to} {
				if d.URL == "" {
					if *d = c.Database; d == &to {
						return usage(errors.New("--to is missing: the database to copy into"))
					}
				} else if err := d.settle(c); err != nil {
					return usage(err)
				}
			}
			return a.migrate(ctx, c, &from, &to)
		})
	cmd.Flags().StringVar(&from.URL, "from", "", "the database to copy (default: the configuration's)")
	cmd.Flags().StringVar(&from.PasswordFile, "from-password-file", "", "its password, where it is PostgreSQL")
	cmd.Flags().StringVar(&to.URL, "to", "", "the empty database to copy into")
	cmd.Flags().StringVar(&to.PasswordFile, "to-password-file", "", "its password, where it is PostgreSQL")
	return cmd
}

func (a *app) migrate(ctx context.Context, c *Config, from, to *Database) (err error) {
	source, release, err := from.alone(ctx, c)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close(), release()) }()
	if err := a.copyInto(ctx, c, source, to); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Next: set database.url to %s, then kernelgate serve. Keep %s away from gateways.\n", to.URL, from.URL)
	return err
}

// copyInto copies a database into a new one, which it also makes where it is a
// file. A file that it made is gone again after a failure.
func (a *app) copyInto(ctx context.Context, c *Config, source storage.Database, to *Database) (err error) {
	if !to.server() {
		if _, err := os.Stat(to.URL); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s exists already: %w", to.URL, storage.ErrNotEmpty), err)
		}
		if err := os.MkdirAll(filepath.Dir(to.URL), 0o700); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				_ = removeDatabase(to.URL)
			}
		}()
	}
	target, release, err := to.alone(ctx, c)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close(), release()) }()
	var verdict *history.Verdict
	tables, err := storage.Copy(ctx, source, target, func(table string) { fmt.Fprintf(a.stderr, "copying %s\n", table) },
		func(r workflow.Reader) error {
			fmt.Fprintln(a.stderr, "verifying the log")
			verdict, err = verifyLog(ctx, c, r)
			return err
		})
	if err != nil {
		return fmt.Errorf("nothing was copied: %w", err)
	}
	for _, t := range tables {
		if _, err := fmt.Fprintf(a.stdout, "%-12s %8d rows  sha256:%x\n", t.Name, t.Rows, t.Digest); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.stdout, "The log is whole: %d events of %s, registry version %d.\n", verdict.Size, verdict.KernelID, verdict.RegistryVersion)
	return err
}

// verifyLog judges the whole log from the pinned root.
func verifyLog(ctx context.Context, c *Config, r workflow.Reader) (*history.Verdict, error) {
	var claim history.Claim
	var err error
	if claim.Registry, err = r.Registry(); err != nil {
		return nil, err
	}
	if len(claim.Registry) == 0 {
		return nil, errors.New("the database is of no Kernel: kernelgate init has not run on it")
	}
	var size int64
	if claim.Checkpoint, size, err = r.Checkpoint(); err != nil {
		return nil, fmt.Errorf("the last checkpoint: %w", err)
	}
	return history.Verify(ctx, history.Trust{Root: c.Root}, claim, storage.LeavesOf(r, size))
}

// removeDatabase removes a SQLite database with the files beside it.
func removeDatabase(path string) error {
	var failed []error
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
