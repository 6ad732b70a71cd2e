package guard

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Endpoint is where a guard is reached: "unix:/path" or "tls://host:port". TLS
// is mutual, version 1.3; the files are PEM. CA signs the other side's
// certificate: use one that signs for nobody but this guard and its gateways.
type Endpoint struct {
	Address       string
	Cert, Key, CA string // files; with tls only
}

// Check refuses an address of neither form. It opens no file.
func (e Endpoint) Check() error {
	_, _, err := e.parse()
	return err
}

// Listen makes the guard's side.
func (e Endpoint) Listen() (net.Listener, error) {
	path, host, err := e.parse()
	if err != nil {
		return nil, err
	}
	if path != "" {
		return Listen(path)
	}
	config, pool, err := e.tls()
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	l, err := net.Listen("tcp", host)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return tls.NewListener(l, config), nil
}

// Client makes the gateway's side. It connects when called.
func (e Endpoint) Client() (*Client, error) {
	path, host, err := e.parse()
	if err != nil {
		return nil, err
	}
	if path != "" {
		return NewClient(path), nil
	}
	config, pool, err := e.tls()
	if err != nil {
		return nil, err
	}
	config.RootCAs = pool
	return newClient("https://"+host, &http.Transport{TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: time.Minute}), nil
}

func (e Endpoint) parse() (path, host string, err error) {
	if path, ok := strings.CutPrefix(e.Address, "unix:"); ok && strings.HasPrefix(path, "/") {
		return path, "", nil
	}
	u, err := url.Parse(e.Address)
	if err != nil || u.Scheme != "tls" || u.Port() == "" || u.Host == "" || e.Address != "tls://"+u.Host {
		return "", "", fmt.Errorf("guard: the address %.200q is neither unix:/path nor tls://host:port", e.Address)
	}
	return "", u.Host, nil
}

func (e Endpoint) tls() (*tls.Config, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(e.Cert, e.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("guard: certificate and key: %w", err)
	}
	ca, err := os.ReadFile(e.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("guard: CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("guard: %s holds no certificate", e.CA)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}, pool, nil
}
