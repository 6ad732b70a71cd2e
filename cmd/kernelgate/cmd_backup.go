package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) backupCommand() *cobra.Command {
	var out string
	cmd := a.command("backup", "Copy the database into a file while gateways run",
		`backup copies one state of the database, SQLite or PostgreSQL, into a new SQLite
file, while gateways go on. The copy is compared by rows and digests, and its log
verified from root, before the file gets its name. -o names the file, or a
directory, in which the file is named after the time.

The database is the records of people, the log and the state. Back up beside it
the artifacts (their files never change, so any copying tool will do), the
configuration and the API tokens. Do not back up the guard's memory: it is
rebuilt from the log, and an old copy of it is refused.`,
		`  kernelgate backup -o /backup/
  kernelgate backup -o /backup/kernelgate.db`,
		func(ctx context.Context, c *Config) error {
			if out == "" {
				return usage(errors.New("-o is missing: the file or directory to write to"))
			}
			return a.backup(ctx, c, out)
		})
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file to make, or a directory for it")
	return cmd
}

func (a *app) backup(ctx context.Context, c *Config, out string) (err error) {
	if err := c.requireRoot(); err != nil {
		return err
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		out = filepath.Join(out, "kernelgate-"+time.Now().UTC().Format("20060102T150405Z")+".db")
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s exists already", out), err)
	}
	source, err := openAccounts(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	part, err := filepath.Abs(out + ".part")
	if err != nil {
		return err
	}
	if err := removeDatabase(part); err != nil { // of a backup that was cut off
		return err
	}
	if err := a.copyInto(ctx, c, source, &Database{URL: part}); err != nil {
		return err
	}
	if err := syncFile(part); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(part, out), os.Remove(part+".lock"), syncFile(filepath.Dir(out))); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, out)
	return err
}

// syncFile has a file, or a directory's names, on the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (a *app) restoreCommand() *cobra.Command {
	var from string
	cmd := a.command("restore", "Copy a backup into the configured database, which must be empty",
		`restore copies a file that backup made into the database of the configuration,
which must be empty (a file must not exist), and verifies it as backup does.

A backup is older than what it replaces. The guard remembers the log's last
checkpoint, so a gateway on a log that ends before it says so and stops: what
came after is missing, and signing on would fork the log. Restore the newest
state there is (the database's own, or a replica's). Where it is truly lost, see
docs/operations.md.`,
		`  kernelgate restore --from /backup/kernelgate-20260601T120000Z.db`,
		func(ctx context.Context, c *Config) error {
			if from == "" {
				return usage(errors.New("--from is missing: the file that backup made"))
			}
			return a.restore(ctx, c, from)
		})
	cmd.Flags().StringVar(&from, "from", "", "the file that backup made")
	return cmd
}

func (a *app) restore(ctx context.Context, c *Config, from string) (err error) {
	if err := c.requireRoot(); err != nil {
		return err
	}
	if info, err := os.Stat(from); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", from)
	}
	path, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	source, release, err := (&Database{URL: path}).alone(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close(), release(), os.Remove(path+".lock")) }()
	if err := a.copyInto(ctx, c, source, &c.Database); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, "Next: kernelgate serve")
	return err
}
