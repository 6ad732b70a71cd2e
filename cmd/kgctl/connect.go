package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/workflow/client"
)

const connectHelp = `Commands that talk to a gateway take its address from --server or KGCTL_SERVER, and the token
from the file that --token-file or KGCTL_TOKEN_FILE names; a token never stands on the command line.
The pinned root, the digest of registry version 1, comes from --root or KGCTL_ROOT. Without it the
gateway's root is pinned when it is first seen, and any other is refused from then on.

What you would say each time can stand in ~/.config/kgctl/config.yaml (KGCTL_CONFIG names another file):

  server: https://gateway.example:8420
  tokenFile: token          # relative paths begin at this file's directory
  root: sha256:...
  caFile: ca.pem
  key: pkcs11:token=ryan?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin

A flag goes before the environment (KGCTL_KEY for the key), and that before the file.`

// connection says how a gateway is reached and what it is checked against.
type connection struct{ server, tokenFile, root, caFile string }

func (c *connection) flags(root *cobra.Command) {
	s := root.PersistentFlags()
	s.StringVar(&c.server, "server", "", "the gateway's address (KGCTL_SERVER)")
	s.StringVar(&c.tokenFile, "token-file", "", "file that holds your token (KGCTL_TOKEN_FILE)")
	s.StringVar(&c.root, "root", "", "pinned digest of registry version 1 (KGCTL_ROOT)")
	s.StringVar(&c.caFile, "ca-file", "", "certificates to trust the gateway by, PEM (KGCTL_CA_FILE)")
}

// complete takes from the environment, and then from the file, what no flag says.
func (c *connection) complete(f settings) {
	for name, v := range map[string]struct {
		value *string
		file  string
	}{
		"KGCTL_SERVER": {&c.server, f.Server}, "KGCTL_TOKEN_FILE": {&c.tokenFile, f.TokenFile},
		"KGCTL_ROOT": {&c.root, f.Root}, "KGCTL_CA_FILE": {&c.caFile, f.CAFile},
	} {
		*v.value = cmp.Or(*v.value, os.Getenv(name), v.file)
	}
}

// connect makes the client; nothing is sent yet.
func (a *app) connect() (*client.Client, error) {
	c := &a.connection
	if c.server == "" {
		return nil, usagef("which gateway? Name it by --server, KGCTL_SERVER or in %s", settingsName)
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	gateway, err := client.New(c.server, token, &http.Client{Transport: transport})
	if err != nil {
		return nil, usageError{err}
	}
	return gateway, nil
}

func (c *connection) token() (string, error) {
	if c.tokenFile == "" {
		return "", nil // the gateway will say that it needs one
	}
	info, err := os.Stat(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s is readable by others: chmod 600 it", c.tokenFile)
	}
	data, err := readFile(c.tokenFile, 4096)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (c *connection) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one, by its documentation
	t.ResponseHeaderTimeout = 2 * time.Minute
	if c.caFile == "" {
		return t, nil
	}
	pem, err := readFile(c.caFile, 1<<20)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New(c.caFile + " holds no certificate in PEM form")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}
