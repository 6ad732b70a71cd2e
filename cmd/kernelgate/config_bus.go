package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/storage/bus"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	defaultStream   = "KERNELGATE"
	defaultMaxLag   = 1000
	defaultMaxDelay = 15 * time.Minute
)

// Bus is the audit bus: the log, published to NATS JetStream. Without a url there is none.
type Bus struct {
	URL         string        `yaml:"url"`         // tls://HOST:4222, or nats:// on this machine
	Credentials string        `yaml:"credentials"` // a NATS credentials file, or a file with an nkey's seed
	TLS         BusTLS        `yaml:"tls"`
	Stream      string        `yaml:"stream"`
	Replicas    int           `yaml:"replicas"` // of a stream that the gateway makes
	MaxLag      int64         `yaml:"maxLag"`   // in events: further behind, new work is refused
	MaxDelay    time.Duration `yaml:"maxDelay"` // of the oldest event: likewise

	tls *tls.Config
}

// BusTLS is how the server is known, and the gateway to the server.
type BusTLS struct {
	CA   string `yaml:"ca"` // certificates in PEM that vouch for the server; empty: the system's
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

func (b *Bus) settle(c *Config) error {
	if b.URL == "" {
		if b.Credentials != "" || b.TLS != (BusTLS{}) {
			return errors.New("credentials and tls belong to url, which is not set")
		}
		return nil
	}
	for _, path := range []*string{&b.Credentials, &b.TLS.CA, &b.TLS.Cert, &b.TLS.Key} {
		if *path != "" {
			*path = c.path(*path)
		}
	}
	if (b.TLS.Cert == "") != (b.TLS.Key == "") {
		return errors.New("tls: cert and key belong together")
	}
	settings := b.config()
	return settings.Check()
}

func (b *Bus) config() bus.Config {
	return bus.Config{URL: b.URL, Credentials: b.Credentials, TLS: b.tls, Stream: b.Stream, Replicas: b.Replicas, MaxLag: b.MaxLag, MaxDelay: b.MaxDelay}
}

// open reads the certificates; nil where the system's are enough.
func (t BusTLS) open() (*tls.Config, error) {
	if t == (BusTLS{}) {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := readBounded(t.CA, maxConfig)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// openBus makes the bus; nil where none is configured.
func (g *gateway) openBus() (err error) {
	b := &g.config.Bus
	if b.URL == "" {
		return nil
	}
	if b.tls, err = b.TLS.open(); err != nil {
		return fmt.Errorf("bus: tls: %w", err)
	}
	g.bus, err = bus.New(b.config(), g.store, g.log)
	return err
}

// admit says whether new work is taken: not while too much of the log awaits
// its seal, or the bus.
func (g *gateway) admit(ctx context.Context) error {
	lag, err := g.logLag(ctx)
	if err != nil {
		return err
	}
	if limit := g.config.Limits.MaxUnsealedEvents; lag > limit {
		return fmt.Errorf("%w: %d events of the log are not sealed, more than %d (limits.maxUnsealedEvents); the guard must seal first", workflow.ErrHeld, lag, limit)
	}
	if g.bus == nil {
		return nil
	}
	return g.bus.Admit(ctx)
}

// runBus publishes until ctx ends.
func (g *gateway) runBus(ctx context.Context) {
	if g.bus == nil {
		return
	}
	if err := g.bus.Run(ctx); err != nil && ctx.Err() == nil {
		g.log.ErrorContext(ctx, "the audit bus ended", "err", err)
	}
}

// busHealth is the readiness check; nil where there is no bus.
func (g *gateway) busHealth() func(context.Context) error {
	if g.bus == nil {
		return nil
	}
	return g.bus.Check
}

// busMetrics shows how far the bus is behind.
func (g *gateway) busMetrics(metrics *prometheus.Registry) {
	if g.bus == nil {
		return
	}
	gauge := func(name, help string, value func(bus.Lag) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			l, err := g.bus.Lag(ctx)
			if err != nil {
				return -1
			}
			return value(l)
		})
	}
	metrics.MustRegister(
		gauge("kernelgate_bus_lag_events", "Sealed audit events that the bus has not acknowledged; -1 where it cannot be read.", func(l bus.Lag) float64 { return float64(l.Events) }),
		gauge("kernelgate_bus_delay_seconds", "Age of the oldest of them; -1 where it cannot be read.", func(l bus.Lag) float64 { return l.Delay.Seconds() }),
		gauge("kernelgate_bus_failing", "1 where this gateway's last attempt to publish failed, -1 where it cannot be read.", func(l bus.Lag) float64 {
			if l.Err != nil {
				return 1
			}
			return 0
		}),
	)
}
