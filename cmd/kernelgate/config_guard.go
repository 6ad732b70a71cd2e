package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

const defaultCallTimeout = pkcs11.DefaultCallTimeout

// maxSocketPath is what every system has room for in a socket's address.
const maxSocketPath = 103

// Guard says what the guard signs with, and how the gateway reaches it.
type Guard struct {
	// Address is where a guard serves that others start, unix:/path or
	// tls://host:port; where it is empty the gateway starts and supervises one
	// itself, on Socket.
	Address     string        `yaml:"address"`
	TLS         GuardTLS      `yaml:"tls"`
	Command     []string      `yaml:"command"` // starts the guard; empty: this program
	Socket      string        `yaml:"socket"`
	Group       string        `yaml:"group"` // may use the socket too; empty: the guard's user alone
	Memory      string        `yaml:"memory"`
	RecordsKey  string        `yaml:"recordsKey"` // the URI of a kernel.records key
	AuditKey    string        `yaml:"auditKey"`   // the URI of a kernel.audit key
	CallTimeout time.Duration `yaml:"callTimeout"`
	Kept        []string      `yaml:"kept"`      // files of checkpoints that the operator kept
	Witnesses   string        `yaml:"witnesses"` // the policy that a log must meet which the memory is rebuilt from
}

// GuardTLS is one side's certificate and key, and the CA of the other's, as
// PEM files.
type GuardTLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

func (g *Guard) settle(c *Config) error {
	g.Socket = c.data(g.Socket, "guard.sock")
	g.Memory = c.data(g.Memory, "guard.json")
	if err := g.settleAddress(c); err != nil {
		return err
	}
	for i := range g.Kept {
		g.Kept[i] = c.path(g.Kept[i])
	}
	if g.Witnesses != "" {
		g.Witnesses = c.path(g.Witnesses)
	}
	if len(g.Socket) > maxSocketPath {
		return fmt.Errorf("socket: the path %s is longer than the %d bytes that a socket's address holds; set guard.socket to a shorter one", g.Socket, maxSocketPath)
	}
	if g.CallTimeout < time.Second {
		return errors.New("callTimeout: set a second or more")
	}
	if len(g.Command) > 0 && !filepath.IsAbs(g.Command[0]) {
		return fmt.Errorf("command: %q is not an absolute path", g.Command[0])
	}
	for name, uri := range map[string]string{"recordsKey": g.RecordsKey, "auditKey": g.AuditKey} {
		if uri == "" {
			continue
		}
		if _, err := open.Parse(uri); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (g *Guard) settleAddress(c *Config) error {
	secured := strings.HasPrefix(g.Address, "tls:")
	if complete := g.TLS.Cert != "" && g.TLS.Key != "" && g.TLS.CA != ""; secured != complete || !secured && g.TLS != (GuardTLS{}) {
		return errors.New("tls: set cert, key and ca with an address of tls://host:port, and only then")
	}
	if secured {
		g.TLS = GuardTLS{c.path(g.TLS.Cert), c.path(g.TLS.Key), c.path(g.TLS.CA)}
	} else if path, ok := strings.CutPrefix(g.Address, "unix:"); ok {
		g.Socket = filepath.Clean(path)
	}
	if g.managed() {
		return nil
	}
	if len(g.Command) > 0 {
		return errors.New("address names a guard that others start; leave command out")
	}
	if err := g.endpoint().Check(); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return nil
}

// endpoint is where the guard listens, and where the gateway reaches it.
func (g *Guard) endpoint() guard.Endpoint {
	e := guard.Endpoint{Address: g.Address, Cert: g.TLS.Cert, Key: g.TLS.Key, CA: g.TLS.CA}
	if g.managed() {
		e.Address = "unix:" + g.Socket
	}
	return e
}

// reporting says in the log what becomes of the endpoint's TLS files.
func reporting(e guard.Endpoint, log *slog.Logger) guard.Endpoint {
	e.Log = func(message string, err error) {
		if err != nil {
			log.Error(message, "err", err)
			return
		}
		log.Info(message)
	}
	return e
}

// maxNote bounds a checkpoint's file and a witness policy, in bytes.
const maxNote = 64 << 10

// checkpoints reads those that the operator kept.
func (g *Guard) checkpoints() ([]string, error) {
	var notes []string
	for _, file := range g.Kept {
		text, err := readBounded(file, maxNote)
		if err != nil {
			return nil, fmt.Errorf("guard.kept: %w", err)
		}
		notes = append(notes, string(text))
	}
	return notes, nil
}

// openWitnesses reads a witness policy; nil where no file is set.
func openWitnesses(file string) (*auditlog.WitnessPolicy, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readBounded(file, maxNote)
	if err != nil {
		return nil, err
	}
	return auditlog.ParseWitnessPolicy(string(text))
}

// managed: the gateway starts the guard itself.
func (g *Guard) managed() bool { return g.Address == "" }

// requireGuard refuses a configuration that no guard can run with.
func (c *Config) requireGuard() error {
	if err := c.requireRoot(); err != nil {
		return err
	}
	if c.Guard.RecordsKey == "" || c.Guard.AuditKey == "" {
		return fmt.Errorf("configuration %s: set guard.recordsKey and guard.auditKey to the URIs of the Kernel's keys", c.file)
	}
	return nil
}

// requireServe refuses a configuration that no gateway can run with.
func (c *Config) requireServe() error {
	if c.Guard.managed() && len(c.Guard.Command) == 0 {
		return c.requireGuard()
	}
	return c.requireRoot()
}
