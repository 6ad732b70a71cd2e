package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

func (a *app) serveCommand() *cobra.Command {
	return a.command("serve", "Run the gateway: the HTTP API and the workflow",
		`serve answers the HTTP API, takes upgrades through the workflow, and starts
and supervises the guard as a process of its own (unless guard.address names
one). On SIGTERM or SIGINT it lets requests under way finish; a second signal
ends it at once. After any end it goes on where it was.`,
		`  kernelgate serve --config kernelgate.yaml
  KERNELGATE_LISTEN=127.0.0.1:9000 kernelgate serve --config kernelgate.yaml`,
		a.serve)
}

func (a *app) serve(ctx context.Context, c *Config) (err error) {
	if err := c.requireServe(); err != nil {
		return err
	}
	log := c.Log.logger(a.stderr, "serve")
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
	case !done:
		return fmt.Errorf("this Kernel is not initialised: kernelgate init --config %s --root DIGEST --registry FILE", a.file)
	}
	if err := g.engine.CheckPolicy(ctx); err != nil {
		return err
	}
	handler, err := g.face()
	if err != nil {
		return err
	}
	if g.notifier, err = g.openNotifier(); err != nil {
		return err
	}
	l, url, err := listen(c, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "the gateway serves", "url", url, "version", version())
	return a.work(ctx, g, l, handler)
}

// handler is the API; sessions may be nil.
func (g *gateway) handler(sessions func(*http.Request) (envelope.ID, string, bool, error)) (http.Handler, error) {
	tokens, err := openTokens(g.config.tokens())
	if err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), g.tally)
	g.busMetrics(metrics)
	face := &api.Gateway{Workflow: g.engine, Store: g.store}
	return api.New(api.Config{
		Engine: face, Artifacts: g.artifacts, Tokens: tokens, Health: g.health(), Logger: g.log, Metrics: metrics, Sessions: sessions,
		SigningRequests: g.store, Log: face, PrivateLog: g.config.PrivateLog,
	})
}

// openTokens opens the API's tokens. Without any the gateway serves all the
// same: nobody but an operator can make the first.
func openTokens(path string) (*api.TokenFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		_, err = f.WriteString("[]\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("token file: %w", err)
	}
	return api.OpenTokens(path)
}

// work runs the guard, the engine and the API until ctx ends, and ends them in
// the reverse order: requests under way need the engine, the engine the guard.
// Notifications follow the log beside them; what they do not send any more, the
// next run sends.
func (a *app) work(ctx context.Context, g *gateway, l net.Listener, h http.Handler) error {
	var guards, engines sync.WaitGroup
	guardCtx, stopGuard := context.WithCancel(context.WithoutCancel(ctx))
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer guards.Wait()
	defer stopGuard()
	defer engines.Wait()
	defer stopEngine()
	if g.config.Guard.managed() {
		guards.Go(func() { a.supervise(guardCtx, g) })
	}
	guards.Go(func() { g.watchGuard(guardCtx) })
	guards.Go(func() { g.watchLog(guardCtx) })
	engines.Go(func() {
		g.awaitGuard(engineCtx)
		if err := g.engine.Run(engineCtx); err != nil {
			g.log.ErrorContext(ctx, "the workflow ended", "err", err)
		}
	})
	if g.notifier != nil {
		engines.Go(func() { _ = g.notifier.Run(engineCtx) }) // its error is the context's
	}
	engines.Go(func() { g.runBus(engineCtx) })
	err := api.Serve(ctx, l, g.tracer.requests(h), g.config.Limits.Drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests under way were cut off after %s (limits.drain): %w", g.config.Limits.Drain, err)
	}
	g.log.InfoContext(ctx, "the gateway ends", "err", err)
	return err
}

// awaitGuard lets a guard that is just starting come up, so that the engine's
// first round does not fail and wait.
func (g *gateway) awaitGuard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if status, err := g.guard.Status(ctx); err == nil && status.Ready {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// guardWatch is how often the gateway asks its guard how it is.
const guardWatch = time.Second

// pause waits; false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// supervise keeps a guard running. After a refused PIN there is none, and the
// gateway only reads.
func (a *app) supervise(ctx context.Context, g *gateway) {
	err := guard.Supervise(ctx, guard.Supervisor{
		Command: func() *exec.Cmd { return guardProcess(g.config, a.stderr) },
		Socket:  g.config.Guard.Socket, Every: time.Second, Patience: g.config.Guard.CallTimeout + 5*time.Second, Backoff: 100 * time.Millisecond,
		Log: func(message string, err error) { g.log.WarnContext(ctx, message, "err", err) },
	})
	if errors.Is(err, signer.ErrPIN) {
		g.log.ErrorContext(ctx, "a token refused the guard's PIN; the guard is not started again, since tokens lock. The gateway serves reading only. Set the PIN right, then restart kernelgate serve", "err", err)
	} else if err != nil {
		g.log.ErrorContext(ctx, "the guard is not supervised any more", "err", err)
	}
}
