package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// CommandPad is the pages for people.
type CommandPad struct {
	Off    bool   `yaml:"off"`
	Origin string `yaml:"origin"` // as browsers see the gateway
}

func (p *CommandPad) settle(c *Config) error {
	if p.Off || p.Origin != "" {
		return nil
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return err
	}
	if c.TLS.on() {
		p.Off = true // under which name browsers come, only the operator knows
		return nil
	}
	// Browsers bind keys to names, never to addresses.
	p.Origin = "http://localhost:" + port
	return nil
}

// face is all that is served: the pages, and the API with their sessions.
func (g *gateway) face() (http.Handler, error) {
	if g.config.CommandPad.Off {
		g.log.Info("CommandPad is off; commandPad.origin turns it on where TLS is used")
		return g.handler(nil)
	}
	var targets []envelope.ID
	for _, name := range slices.Sorted(maps.Keys(g.config.Targets)) {
		targets = append(targets, envelope.ID(name))
	}
	pad, err := commandpad.New(commandpad.Config{
		Engine: g.engine, Store: g.store, Artifacts: g.artifacts, Accounts: g.store, Origin: g.config.CommandPad.Origin,
		Targets: targets, Checks: g.checks(), Clock: time.Now, Logger: g.log,
	})
	if err != nil {
		return nil, err
	}
	calls, err := g.handler(pad.Identify)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", pad)
	for _, path := range api.Paths {
		mux.Handle(path, calls)
	}
	return mux, nil
}

func (g *gateway) checks() []commandpad.Check {
	return []commandpad.Check{
		{Name: "Database", Run: g.databaseAnswers},
		{Name: "Guard", Run: g.guardSigns},
		{Name: "Audit log sealed", Run: func(ctx context.Context) error {
			lag, err := g.logLag(ctx)
			if err == nil && lag > g.config.Limits.UnsealedEvents {
				err = fmt.Errorf("%d events are not sealed", lag)
			}
			return err
		}},
	}
}
