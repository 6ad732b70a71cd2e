package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

func (a *app) initCommand() *cobra.Command {
	var root, registry string
	cmd := a.command("init", "Begin a new Kernel: the guard's memory and the log, once",
		`init takes version 1 of the key registry, signed by all five approvers. The
guard judges it by the pinned root and makes its memory; the log begins with
the first event key, the registry and a checkpoint.

It refuses where it was done already. Interrupted, it is run again.`,
		`  kernelgate init --config kernelgate.yaml --root sha256:5f0c... --registry registry.json`,
		func(ctx context.Context, c *Config) error { return a.init(ctx, c, root, registry) })
	cmd.Flags().StringVar(&root, "root", "", "the pinned digest of version 1, which must be the configuration's")
	cmd.Flags().StringVar(&registry, "registry", "", "the registry file that kgctl registry propose and sign made")
	_ = cmd.MarkFlagRequired("root")
	_ = cmd.MarkFlagRequired("registry")
	return cmd
}

func (a *app) init(ctx context.Context, c *Config, rootText, file string) error {
	root, err := envelope.ParseDigest(rootText)
	if err != nil {
		return usage(fmt.Errorf("--root: %w", err))
	}
	if err := c.requireServe(); err != nil {
		return err
	}
	if root != c.Root {
		return usage(fmt.Errorf("--root is %s, but the configuration pins %s; one of them is wrong", root, c.Root))
	}
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	entry, err := readEntry(file)
	if err != nil {
		return err
	}
	if _, err := keyregistry.Accept(nil, root, entry); err != nil {
		return fmt.Errorf("registry %s: %w", file, err)
	}
	if err := a.begin(ctx, c, file, entry); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The Kernel is initialised; its root is %s.\nNext: kernelgate token create --config %s --name NAME --role ROLE, then kernelgate serve --config %s\n", root, a.file, a.file)
	return err
}

// begin makes the guard's memory, then the store's first rows. Each step does
// nothing where an interrupted init has done it.
func (a *app) begin(ctx context.Context, c *Config, file string, entry keyregistry.SignedDocument) (err error) {
	log := c.Log.logger(a.stderr, "init")
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	g, err := assemble(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	switch done, err := g.initialised(ctx); {
	case err != nil:
		return err
	case done:
		return errors.New("this Kernel is initialised already; a Kernel is initialised once. Start it: kernelgate serve")
	}
	if c.Guard.managed() {
		stop, err := a.startGuard(ctx, c, g.guard, "--"+flagInit, file)
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := requireFresh(ctx, c, g.guard, log); err != nil {
		return err
	}
	return g.engine.Init(ctx, entry)
}

// startGuard runs a guard, with further flags, for a command's time.
func (a *app) startGuard(ctx context.Context, c *Config, client *guard.Client, flags ...string) (stop func(), err error) {
	cmd := guardProcess(c, a.stderr, flags...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Kill() // its memory is safe at any moment
		<-ended                //nolint:errcheck // it was killed
	}
	limit := time.After(2*c.Guard.CallTimeout + handOver)
	for {
		if _, err := client.Status(ctx); err == nil {
			return stop, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the guard ended before it served (%w); its message stands above", err)
		case <-limit:
			stop()
			return nil, errors.New("the guard does not begin to serve; see the messages above")
		case <-ctx.Done():
			stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// requireFresh refuses to begin a log where the guard has signed one already.
func requireFresh(ctx context.Context, c *Config, g workflow.Guard, log *slog.Logger) error {
	status, err := g.Status(ctx)
	switch {
	case err != nil:
		return err
	case !status.Ready:
		return fmt.Errorf("the guard is not ready: %s", status.Reason)
	case status.CheckpointSize > 0 || status.RegistryDigest != c.Root:
		return fmt.Errorf("the guard's memory is of a log with %d events, but the database %s is empty: restore the database, do not begin anew", status.CheckpointSize, c.Database.URL)
	}
	log.DebugContext(ctx, "the guard has accepted the registry", "version", status.RegistryVersion)
	return nil
}
