package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/bus"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/notify"
)

// gateway is the parts that serve and init work with.
type gateway struct {
	config    *Config
	log       *slog.Logger
	store     store
	artifacts workflow.Artifacts
	bus       *bus.Bus // nil: the log is not published
	guard     *guard.Client
	engine    *workflow.Engine
	notifier  *notify.Notifier // nil: nobody is told
	tally     *tally
	tracer    tracer
	closers   []func() error // called last to first
}

// assemble opens the parts. The guard is asked nothing yet.
func assemble(ctx context.Context, c *Config, log *slog.Logger) (g *gateway, err error) {
	g = &gateway{config: c, log: log, tally: newTally()}
	if g.guard, err = reporting(c.Guard.endpoint(), log).Client(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	g.closes(func() error { g.guard.Close(); return nil })
	if err := g.openTraces(ctx); err != nil {
		return g, err
	}
	db, release, err := openStore(ctx, c)
	if err != nil {
		return g, err
	}
	g.store = tracedStore{db, g.tracer}
	g.closes(release)
	g.closes(db.Close)
	artifacts, err := openArtifacts(ctx, c, log)
	if err != nil {
		return g, err
	}
	g.artifacts = artifacts
	g.closes(artifacts.Close)
	if err := g.openBus(); err != nil {
		return g, err
	}
	targets, closeTargets, err := openTargets(ctx, c)
	if err != nil {
		return g, err
	}
	g.closes(closeTargets)
	rules, err := openPolicy(c.Policy)
	if err != nil {
		return g, err
	}
	watch, err := openCanary(c)
	if err != nil {
		return g, err
	}
	witnesses, err := c.Witnesses.open(db)
	if err != nil {
		return g, err
	}
	g.engine = workflow.New(workflow.Config{
		Store: g.store, Artifacts: artifacts, Guard: tracedGuard{g.guard, g.tracer}, Policy: rules, Deployer: tracedDeployer{targets, g.tracer}, Canary: watch, Witnesses: witnesses, AwaitWitnesses: c.Witnesses.Await,
		Root: c.Root, Instance: c.Instance, Logger: log, Admit: g.admit, Heartbeat: c.Limits.Heartbeat,
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			db.SetEventKey(id, s)
			return nil
		},
	})
	return g, nil
}

func (g *gateway) closes(f func() error) { g.closers = append(g.closers, f) }

func (g *gateway) close() error {
	var failed []error
	for _, f := range slices.Backward(g.closers) {
		failed = append(failed, f())
	}
	return errors.Join(failed...)
}

// initialised: the store has a registry.
func (g *gateway) initialised(ctx context.Context) (done bool, err error) {
	err = g.store.View(ctx, func(r workflow.Reader) error {
		entries, err := r.Registry()
		done = len(entries) > 0
		return err
	})
	return done, err
}

// health are the readings behind /readyz and /metrics.
func (g *gateway) health() api.Health {
	return api.Health{MaxLogLag: g.config.Limits.UnsealedEvents, Database: g.databaseAnswers, Guard: g.guardSigns, LogLag: g.logLag, Bus: g.busHealth()}
}

func (g *gateway) databaseAnswers(ctx context.Context) error {
	return g.store.View(ctx, func(r workflow.Reader) error {
		_, err := r.LogSize()
		return err
	})
}

// guardSigns: the guard is ready, and its keys sign.
func (g *gateway) guardSigns(ctx context.Context) error {
	status, err := g.guard.Status(ctx)
	if err != nil {
		return err
	}
	if !status.Ready {
		return errors.New("the guard is not ready: " + status.Reason)
	}
	return g.guard.Probe(ctx)
}

// logLag is how many events no checkpoint covers. An engine that takes no
// records, above all because its log is not the one that was sealed, is an error.
func (g *gateway) logLag(ctx context.Context) (lag int64, err error) {
	if err := g.engine.Ready(); err != nil {
		return 0, err
	}
	err = g.store.View(ctx, func(r workflow.Reader) error {
		size, err := r.LogSize()
		if err != nil {
			return err
		}
		_, sealed, err := r.Checkpoint()
		if errors.Is(err, workflow.ErrNotFound) {
			err = nil
		}
		lag = size - sealed
		return err
	})
	return lag, err
}

// guardProcess is a guard's process, not yet started. Its standard input is a
// pipe from here, so that it ends when this process ends in whatever way; it
// has a process group of its own, since a Ctrl-C is for this process, which
// needs the guard until it has drained.
func guardProcess(c *Config, stderr io.Writer, more ...string) *exec.Cmd {
	argv := c.Guard.Command
	if len(argv) == 0 {
		self, err := os.Executable()
		if err != nil {
			self = os.Args[0]
		}
		argv = []string{self, "guard", "--config", c.file, "--" + flagUntilStdin}
	}
	argv = append(slices.Clone(argv), more...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	_, _ = cmd.StdinPipe() // held until the process is waited for; it fails only where Stdin is set
	return cmd
}
