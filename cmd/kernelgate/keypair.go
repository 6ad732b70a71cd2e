package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// keyPair is a certificate and its key in files, which are read again when they change: whoever
// renews it need not restart the gateway.
type keyPair struct {
	TLS
	log *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	written [2]time.Time // when the files were
	pair    *tls.Certificate
}

// keyPairEvery is how seldom the files are looked at.
const keyPairEvery = time.Second

func openKeyPair(files TLS, log *slog.Logger) (*keyPair, error) {
	c := &keyPair{TLS: files, log: log}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// read takes the files as they are; where they do not go together yet, the
// last pair stays.
func (c *keyPair) read() error {
	var written [2]time.Time
	for i, file := range []string{c.Cert, c.Key} {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		written[i] = info.ModTime()
	}
	if c.pair != nil && written == c.written {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return err
	}
	if c.pair != nil {
		c.log.Info("the TLS certificate was renewed", "notAfter", pair.Leaf.NotAfter)
	}
	c.pair, c.written = &pair, written
	return nil
}

// get is for tls.Config.
func (c *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= keyPairEvery {
		c.looked = time.Now()
		if err := c.read(); err != nil {
			c.log.Error("the TLS certificate could not be read again; the last one is used", "err", err)
		}
	}
	return c.pair, nil
}
