package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

// guardOptions are the guard's flags.
type guardOptions struct {
	init       string // a registry file
	rebuild    bool
	untilStdin bool
}

const (
	flagInit       = "init"
	flagRebuild    = "rebuild"
	flagUntilStdin = "until-stdin-closes"
)

func (a *app) guardCommand() *cobra.Command {
	var o guardOptions
	cmd := a.command("guard", "Run the guard: the one process that uses the Kernel's keys",
		`The guard judges each case itself, by its pinned root, its clock and its
memory, before a Kernel key signs. kernelgate serve starts and supervises one;
run this command where the guard has its own user or host (guard.address).

It ends with 75 when a device does not return from a call (start it again), and
with 77 when a PIN was refused (do not, tokens lock; set the PIN right first).`,
		`  kernelgate guard --config /etc/kernelgate/guard.yaml
  kernelgate guard --config /etc/kernelgate/guard.yaml --init registry.json
  kernelgate guard --config /etc/kernelgate/guard.yaml --rebuild`,
		func(ctx context.Context, c *Config) error { return a.guard(ctx, c, o) })
	cmd.Flags().StringVar(&o.init, flagInit, "", "first make the memory from this registry file, where there is none yet")
	cmd.Flags().BoolVar(&o.rebuild, flagRebuild, false, "sign nothing until the memory is rebuilt from the log (kernelgate guard rebuild)")
	cmd.Flags().BoolVar(&o.untilStdin, flagUntilStdin, false, "end when standard input closes, as it does when a supervisor dies")
	cmd.MarkFlagsMutuallyExclusive(flagInit, flagRebuild)
	cmd.AddCommand(a.rebuildCommand())
	return cmd
}

func (a *app) guard(ctx context.Context, c *Config, o guardOptions) error {
	if err := c.requireGuard(); err != nil {
		return err
	}
	log := c.Log.logger(a.stderr, "guard")
	if o.untilStdin {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		go func() {
			_, _ = io.Copy(io.Discard, a.stdin)
			stop()
		}()
	}
	keys, err := openKernelKeys(ctx, c, log)
	if err != nil {
		return err
	}
	defer keys.close()
	config, err := guardConfig(c, keys)
	if err != nil {
		return err
	}
	config.Rebuild, config.Log = o.rebuild, log
	if o.init != "" {
		if err := makeMemory(config, o.init); err != nil {
			return err
		}
	}
	return serveGuard(ctx, c, config, o, log)
}

func guardConfig(c *Config, keys kernelKeys) (config guard.Config, err error) {
	config = guard.Config{Root: c.Root, MemoryPath: c.Guard.Memory, Records: keys.records, Audit: keys.audit, Clock: time.Now}
	if config.Policy, err = guardPolicy(c.Policy); err != nil {
		return config, err
	}
	if config.Kept, err = c.Guard.checkpoints(); err != nil {
		return config, err
	}
	if config.Witnesses, err = openWitnesses(c.Guard.Witnesses); err != nil {
		return config, fmt.Errorf("guard.witnesses: %w", err)
	}
	return config, nil
}

func serveGuard(ctx context.Context, c *Config, config guard.Config, o guardOptions, log *slog.Logger) error {
	g, err := openGuard(ctx, config, o.untilStdin)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	if err := g.CheckKeys(); err != nil {
		return fmt.Errorf("the configuration's keys are not the registry's: %w", err)
	}
	if err := g.CheckPolicy(); err != nil {
		return err
	}
	l, err := reporting(c.Guard.endpoint(), log).Listen()
	if err != nil {
		return err
	}
	if l.Addr().Network() == "unix" {
		if err := shareSocket(c.Guard); err != nil {
			return fmt.Errorf("guard: %w", errors.Join(err, l.Close()))
		}
	}
	if status, err := g.Status(ctx); err == nil && !status.Ready {
		log.ErrorContext(ctx, "the guard signs nothing", "reason", status.Reason)
	}
	log.InfoContext(ctx, "the guard serves", "address", l.Addr().Network()+":"+l.Addr().String(), "recordsKey", config.Records.Public().KeyID(), "auditKey", config.Audit.Public().KeyID())
	return guard.Serve(ctx, g, l)
}

// shareSocket lets a group use the socket, for a gateway under another user.
func shareSocket(g Guard) error {
	if g.Group == "" {
		return nil
	}
	group, err := user.LookupGroup(g.Group)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(g.Socket, -1, id), os.Chmod(g.Socket, 0o660)) //nolint:gosec // to let the group in is what the operator asks for
}

// handOver is how long a new guard waits for one whose supervisor has just died.
const handOver = 2 * time.Second

// openGuard opens the memory. Under a supervisor it waits a moment for its
// predecessor's end.
func openGuard(ctx context.Context, config guard.Config, wait bool) (*guard.Guard, error) {
	end := time.Now().Add(handOver)
	for {
		g, err := guard.Open(config)
		if !wait || !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) || ctx.Err() != nil {
			return g, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// makeMemory makes the guard's first memory, where there is none.
func makeMemory(config guard.Config, file string) error {
	if _, err := os.Stat(config.MemoryPath); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entry, err := readEntry(file)
	if err != nil {
		return err
	}
	return guard.Init(config, entry)
}

// maxEntry bounds a registry file, in bytes.
const maxEntry = 4 << 20

func readEntry(file string) (entry keyregistry.SignedDocument, err error) {
	data, err := readBounded(file, maxEntry)
	if err == nil {
		err = envelope.DecodeCanonical(data, maxEntry, &entry)
	}
	if err != nil {
		err = fmt.Errorf("registry %s: %w", file, err)
	}
	return entry, err
}
