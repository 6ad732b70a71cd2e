package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health are the true readings behind /readyz and /metrics.
type Health struct {
	Database func(ctx context.Context) error          // a query answers
	Guard    func(ctx context.Context) error          // the guard's keys sign
	LogLag   func(ctx context.Context) (int64, error) // events that no checkpoint covers yet
	Bus      func(ctx context.Context) error          // the audit bus keeps up; nil: there is none
	// MaxLogLag is the most unsealed events with which the gateway is ready.
	MaxLogLag int64
}

const (
	// healthFor is how long a reading holds: anyone may ask, and each reading
	// costs a query and perhaps a hardware signature. A bad one holds shorter:
	// what just starts is not kept from work for long.
	healthFor  = 2 * time.Second
	badFor     = 200 * time.Millisecond
	healthTime = 5 * time.Second
)

// monitor takes the readings, one at a time, and shows them as metrics.
type monitor struct {
	Health
	log *slog.Logger

	mu    sync.Mutex
	taken time.Time
	last  reading
}

type reading struct {
	checks map[string]error
	lag    int64
}

// holds is for how long the reading answers further questions.
func (r reading) holds() time.Duration {
	if r.ready() {
		return healthFor
	}
	return badFor
}

func (r reading) ready() bool {
	for _, err := range r.checks {
		if err != nil {
			return false
		}
	}
	return true
}

// read takes the readings anew where the last ones are old. Its time is its
// own, not the caller's: who hangs up must not make the gateway look broken.
func (m *monitor) read() reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.taken.IsZero() && time.Since(m.taken) < m.last.holds() {
		return m.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTime)
	defer cancel()
	var database, guard, log, bus error
	var lag int64
	var all sync.WaitGroup
	all.Go(func() { database = m.Database(ctx) })
	all.Go(func() { guard = m.Guard(ctx) })
	all.Go(func() { lag, log = m.readLag(ctx) })
	if m.Bus != nil {
		all.Go(func() { bus = m.Bus(ctx) })
	}
	all.Wait()
	m.last = reading{checks: map[string]error{"database": database, "guard": guard, "log": log}, lag: lag}
	if m.Bus != nil {
		m.last.checks["bus"] = bus
	}
	m.taken = time.Now()
	for name, err := range m.last.checks {
		if err != nil {
			m.log.Warn("not ready", "check", name, "err", err)
		}
	}
	return m.last
}

func (m *monitor) readLag(ctx context.Context) (int64, error) {
	lag, err := m.LogLag(ctx)
	if err == nil && lag > m.MaxLogLag {
		err = fmt.Errorf("%d events are not sealed, more than %d", lag, m.MaxLogLag)
	}
	return lag, err
}

var (
	upDesc  = prometheus.NewDesc("kernelgate_check_up", "1 where a readiness check succeeds.", []string{"check"}, nil)
	lagDesc = prometheus.NewDesc("kernelgate_log_unsealed_events", "Audit events that no checkpoint covers yet.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *monitor) Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	ch <- lagDesc
}

// Collect implements prometheus.Collector.
func (m *monitor) Collect(ch chan<- prometheus.Metric) {
	r := m.read()
	for name, err := range r.checks {
		up := 0.0
		if err == nil {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, name)
	}
	ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(r.lag))
}

func (s *server) GetLivez(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// GetReadyz names which check fails; why is in the log, since anyone may ask.
func (s *server) GetReadyz(c echo.Context) error {
	r := s.health.read()
	answer := Readiness{Ready: r.ready(), Checks: map[string]string{}}
	for name, err := range r.checks {
		answer.Checks[name] = "ok"
		if err != nil {
			answer.Checks[name] = "failed"
		}
	}
	if answer.Ready {
		return c.JSON(http.StatusOK, answer)
	}
	c.Response().Header().Set(echo.HeaderRetryAfter, retryAfter)
	return c.JSON(http.StatusServiceUnavailable, answer)
}

func (s *server) GetMetrics(c echo.Context) error {
	promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}).ServeHTTP(c.Response(), c.Request())
	return nil
}
