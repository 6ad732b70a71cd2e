package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

func (a *app) rebuildCommand() *cobra.Command {
	return a.command("rebuild", "Rebuild the guard's lost or old memory from the log",
		`rebuild shows the guard the whole log of this gateway's database, with the
records that it names. The guard trusts none of it: it verifies every event and
every record from its own pinned root, and then writes its memory anew.

Where serve starts the guard, stop serve first: rebuild starts a guard for
rebuilding itself. Where the guard runs by itself (guard.address), its operator
starts it with --rebuild, and serve may go on.

See docs/guard.md, "A lost or old memory", before you run it.`,
		`  kernelgate guard rebuild --config kernelgate.yaml`,
		a.rebuild)
}

func (a *app) rebuild(ctx context.Context, c *Config) (err error) {
	if err := c.requireServe(); err != nil {
		return err
	}
	client, err := c.Guard.endpoint().Client()
	if err != nil {
		return err
	}
	defer client.Close()
	if !c.Guard.managed() {
		db, err := openAccounts(ctx, c)
		if err != nil {
			return err
		}
		return errors.Join(a.rebuildFrom(ctx, db, client), db.Close())
	}
	db, release, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), release()) }()
	stop, err := a.startGuard(ctx, c, client, "--"+flagRebuild)
	if err != nil {
		return err
	}
	defer stop()
	return a.rebuildFrom(ctx, db, client)
}

func (a *app) rebuildFrom(ctx context.Context, db workflow.Store, client *guard.Client) error {
	if err := client.Rebuild(ctx, guard.FromStore(db)); errors.Is(err, workflow.ErrNotFound) {
		return errors.New("the guard's memory was not rebuilt: the database has no sealed log; restore the database first, or begin a new Kernel: kernelgate init")
	} else if err != nil {
		return fmt.Errorf("the guard's memory was not rebuilt: %w", err)
	}
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if !status.Ready {
		return fmt.Errorf("the memory is rebuilt, and the guard still signs nothing: %s", status.Reason)
	}
	_, err = fmt.Fprintf(a.stdout, "The guard's memory is rebuilt: %d events, registry version %d, %d records.\nNext: kernelgate serve\n",
		status.CheckpointSize, status.RegistryVersion, status.Counts.Records)
	return err
}

// watchGuard says in the log why the guard signs nothing, and when it does
// again: what an operator must do is in the reason.
func (g *gateway) watchGuard(ctx context.Context) {
	said := ""
	for pause(ctx, guardWatch) {
		status, err := g.guard.Status(ctx)
		if err != nil {
			continue // that it is away is said elsewhere
		}
		if status.Reason != said {
			said = status.Reason
			g.sayGuard(ctx, said)
		}
	}
}

func (g *gateway) sayGuard(ctx context.Context, reason string) {
	if reason == "" {
		g.log.InfoContext(ctx, "the guard signs again")
		return
	}
	g.log.ErrorContext(ctx, "the guard runs, but signs nothing; reading goes on", "reason", reason,
		slog.String("rebuild", "kernelgate guard rebuild --config "+g.config.file))
}
