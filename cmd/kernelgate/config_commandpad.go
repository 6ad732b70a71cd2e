package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// CommandPad is the pages for people.
type CommandPad struct {
	Off    bool   `yaml:"off"`
	Origin string `yaml:"origin"` // as browsers see the gateway
	OIDC   OIDC   `yaml:"oidc"`
}

// OIDC is an identity provider for signing in to CommandPad.
type OIDC struct {
	Name     string       `yaml:"name"`
	Issuer   string       `yaml:"issuer"` // empty: passkeys only
	ClientID string       `yaml:"clientId"`
	Secret   string       `yaml:"clientSecretFile"`
	Claim    string       `yaml:"claim"`
	People   []OIDCPerson `yaml:"people"`
}

// OIDCPerson says who somebody is whose claim has a value.
type OIDCPerson struct {
	Value  string `yaml:"value"`
	Person string `yaml:"person"`
	Role   string `yaml:"role"`
}

// settle refuses what would let in nobody, or somebody else.
func (o *OIDC) settle(c *Config) error {
	if o.Issuer == "" {
		return nil
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return errors.New("oidc.issuer is an https:// address; http:// is for loopback")
	}
	if len(o.People) == 0 {
		return errors.New("oidc.people says nobody may sign in; name who, or leave oidc out")
	}
	if o.ClientID == "" || o.Secret == "" {
		return errors.New("oidc needs clientId and clientSecretFile")
	}
	c.paths(&o.Secret)
	if o.Name == "" {
		o.Name = u.Hostname()
	}
	if o.Claim == "" {
		o.Claim = "email"
	}
	seen := map[string]bool{}
	for _, p := range o.People {
		var id envelope.ID
		if err := id.UnmarshalText([]byte(p.Person)); err != nil {
			return fmt.Errorf("oidc.people %q: %w", p.Value, err)
		}
		if p.Value == "" || seen[p.Value] {
			return fmt.Errorf("oidc.people: the value %q is empty or stands twice", p.Value)
		}
		if !slices.Contains(api.Roles(), api.Role(p.Role)) {
			return fmt.Errorf("oidc.people %q: the role %q is none of %v", p.Value, p.Role, api.Roles())
		}
		seen[p.Value] = true
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// provider is what the pages are given; nil where passkeys are all.
func (o *OIDC) provider() (*commandpad.OIDC, error) {
	if o.Issuer == "" {
		return nil, nil //nolint:nilnil // none is configured
	}
	secret, err := readBounded(o.Secret, 4<<10)
	if err != nil {
		return nil, fmt.Errorf("commandPad.oidc.clientSecretFile: %w", err)
	}
	text := strings.TrimSpace(string(secret))
	if text == "" {
		return nil, fmt.Errorf("commandPad.oidc.clientSecretFile: %s is empty", o.Secret)
	}
	out := &commandpad.OIDC{Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: text, Claim: o.Claim, People: map[string]commandpad.Identity{}}
	for _, p := range o.People {
		out.People[p.Value] = commandpad.Identity{Person: envelope.ID(p.Person), Role: p.Role}
	}
	return out, nil
}

func (p *CommandPad) settle(c *Config) error {
	if err := p.OIDC.settle(c); err != nil {
		return err
	}
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
	provider, err := g.config.CommandPad.OIDC.provider()
	if err != nil {
		return nil, err
	}
	pad, err := commandpad.New(commandpad.Config{
		Engine: g.engine, Store: g.store, Artifacts: g.artifacts, Accounts: g.store, Origin: g.config.CommandPad.Origin,
		Targets: targets, OIDC: provider, Checks: g.checks(), Clock: time.Now, Logger: g.log,
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
	checks := []commandpad.Check{
		{Name: "Database", Run: g.databaseAnswers},
		{Name: "Guard and its token", Run: g.guardSigns},
		{Name: "Audit log sealed", Run: func(ctx context.Context) error {
			lag, err := g.logLag(ctx)
			if err == nil && lag > g.config.Limits.UnsealedEvents {
				err = fmt.Errorf("%d events are not sealed", lag)
			}
			return err
		}},
	}
	if published := g.busHealth(); published != nil {
		checks = append(checks, commandpad.Check{Name: "Audit bus", Run: published})
	}
	return checks
}
