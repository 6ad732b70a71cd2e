package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// TLS is the gateway's certificate.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

func (t *TLS) settle(c *Config) error {
	if (t.Cert == "") != (t.Key == "") {
		return errors.New("set both cert and key, or neither")
	}
	if t.on() {
		t.Cert, t.Key = c.path(t.Cert), c.path(t.Key)
	}
	return nil
}

func (t *TLS) on() bool { return t.Cert != "" }

// checkListen refuses plain HTTP where others could read the tokens in it.
func checkListen(c *Config) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q is no address of the form 127.0.0.1:8420", c.Listen)
	}
	if !c.TLS.on() && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("listen: %s is not this machine's loopback, and plain HTTP would show tokens to the network; set tls.cert and tls.key, or listen on 127.0.0.1", c.Listen)
	}
	return nil
}

// listen opens the API's address and says its URL.
func listen(c *Config, log *slog.Logger) (net.Listener, string, error) {
	var config *tls.Config
	scheme := "http"
	if c.TLS.on() {
		pair, err := openKeyPair(c.TLS, log)
		if err != nil {
			return nil, "", err
		}
		config = &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12}
		scheme = "https"
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("listen: %w", err)
	}
	address := l.Addr()
	if tcp, ok := address.(*net.TCPAddr); config == nil && (!ok || !tcp.IP.IsLoopback()) {
		// "localhost" is what the resolver says.
		return nil, "", errors.Join(fmt.Errorf("listen: %s is not loopback", address), l.Close())
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, scheme + "://" + address.String(), nil
}
