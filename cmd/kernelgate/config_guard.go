package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

const defaultCallTimeout = pkcs11.DefaultCallTimeout

// maxSocketPath is what every system has room for in a socket's address.
const maxSocketPath = 103

// Guard says what the guard signs with, and how the gateway reaches it.
type Guard struct {
	// Address is a socket that a guard serves which others start; where it is
	// empty the gateway starts and supervises one itself.
	Address     string        `yaml:"address"`
	Command     []string      `yaml:"command"` // starts the guard; empty: this program
	Socket      string        `yaml:"socket"`
	Group       string        `yaml:"group"` // may use the socket too; empty: the guard's user alone
	Memory      string        `yaml:"memory"`
	RecordsKey  string        `yaml:"recordsKey"` // the URI of a kernel.records key
	AuditKey    string        `yaml:"auditKey"`   // the URI of a kernel.audit key
	CallTimeout time.Duration `yaml:"callTimeout"`
}

func (g *Guard) settle(c *Config) error {
	g.Socket = c.data(g.Socket, "guard.sock")
	g.Memory = c.data(g.Memory, "guard.json")
	if g.Address != "" {
		path := strings.TrimPrefix(g.Address, "unix:")
		if !filepath.IsAbs(path) {
			return fmt.Errorf("address: %q is no socket's absolute path, as in unix:/run/kernelgate/guard.sock", g.Address)
		}
		g.Socket = filepath.Clean(path)
		if len(g.Command) > 0 {
			return errors.New("address names a guard that others start; leave command out")
		}
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
		known := func(scheme string) bool { return strings.HasPrefix(uri, scheme) }
		if uri != "" && !slices.ContainsFunc(open.Schemes(), known) {
			return fmt.Errorf("%s: a key's URI begins with one of: %s", name, strings.Join(open.Schemes(), " "))
		}
	}
	return nil
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
