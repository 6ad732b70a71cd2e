package canary

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Config says what watches which target, by the target's name.
type Config map[string]Target

// Target is how one target is watched. docs/canary.md describes each member.
type Target struct {
	Window     time.Duration `yaml:"window"`         // how long after an apply
	Baseline   time.Duration `yaml:"baselineWindow"` // how long before it; 0: as Window
	HTTP       []HTTP        `yaml:"http"`
	Prometheus []Prometheus  `yaml:"prometheus"`
	Exec       []Exec        `yaml:"exec"`
}

// HTTP asks a URL again and again. Redirects are not followed: they are answers.
type HTTP struct {
	Name        string        `yaml:"name"`
	Method      string        `yaml:"method"` // "": GET
	URL         string        `yaml:"url"`
	Status      int           `yaml:"status"`      // what counts as success; 0: 200
	Timeout     time.Duration `yaml:"timeout"`     // of one request; 0: 5 s; at most 60 s
	Interval    time.Duration `yaml:"interval"`    // from one request's begin to the next; 0: 1 s; at least 10 ms
	Concurrency int           `yaml:"concurrency"` // probers, each at that interval; 0: 1; at most 64
	SLA         SLA           `yaml:"sla"`
	Regression  Regression    `yaml:"regression"`
}

// SLA is what a target must keep to. What is left out is not judged.
type SLA struct {
	ErrorRate  *float64      `yaml:"errorRate"` // the most, 0 to 1
	P50        time.Duration `yaml:"p50"`
	P95        time.Duration `yaml:"p95"`
	P99        time.Duration `yaml:"p99"`
	MinSamples int64         `yaml:"minSamples"` // fewer are inconclusive; 0: 1
}

// Regression compares with the target before the apply: a quantile fails above
// Factor times the baseline's when it is also more than Latency above it, the
// error rate likewise with ErrorRate. Factor 0: nothing is compared.
type Regression struct {
	Factor    float64       `yaml:"factor"`
	Latency   time.Duration `yaml:"latency"`
	ErrorRate float64       `yaml:"errorRate"`
}

// Prometheus asks a server's HTTP API for a query's instant value, which must
// be a scalar or a vector of one. The median of the window is judged.
type Prometheus struct {
	Name       string        `yaml:"name"`
	URL        string        `yaml:"url"` // of the server; /api/v1/query is added
	Query      string        `yaml:"query"`
	Timeout    time.Duration `yaml:"timeout"`  // 0: 5 s; at most 60 s
	Interval   time.Duration `yaml:"interval"` // 0: 15 s; at least 10 ms
	Min        *float64      `yaml:"min"`
	Max        *float64      `yaml:"max"`
	Factor     float64       `yaml:"factor"` // more is worse: fails above Factor times the baseline ...
	Floor      float64       `yaml:"floor"`  // ... when it is also more than Floor above it. Factor 0: not compared
	MinSamples int64         `yaml:"minSamples"`
}

// Exec runs a program of the operator's once after the apply. Exit status 0 is
// success; it gets the target's name in KERNELGATE_TARGET.
type Exec struct {
	Name    string        `yaml:"name"`
	Argv    []string      `yaml:"argv"`    // the program's absolute path first
	Timeout time.Duration `yaml:"timeout"` // 0: 1 min; at most 1 h
}

const (
	maxWindow      = 24 * time.Hour
	maxTimeout     = time.Minute
	minInterval    = 10 * time.Millisecond
	maxConcurrency = 64
	maxChecks      = 64
)

// settle fills in defaults and refuses what can never work.
func (t *Target) settle() error {
	if t.Baseline == 0 {
		t.Baseline = t.Window
	}
	names := map[string]bool{}
	name := func(n string) error {
		if names[n] {
			return fmt.Errorf("two checks are named %q", n)
		}
		names[n] = true
		return envelope.CheckText("name", n, 80)
	}
	if n := len(t.HTTP) + len(t.Prometheus) + len(t.Exec); n < 1 || n > maxChecks {
		return fmt.Errorf("%d checks, where 1 to %d are allowed", n, maxChecks)
	}
	if len(t.HTTP)+len(t.Prometheus) > 0 && (t.Window <= 0 || t.Window > maxWindow || t.Baseline <= 0 || t.Baseline > maxWindow) {
		return fmt.Errorf("window and baselineWindow are above 0 and at most %s", maxWindow)
	}
	for i := range t.HTTP {
		if err := errors.Join(name(t.HTTP[i].Name), t.HTTP[i].settle()); err != nil {
			return fmt.Errorf("http %q: %w", t.HTTP[i].Name, err)
		}
	}
	for i := range t.Prometheus {
		if err := errors.Join(name(t.Prometheus[i].Name), t.Prometheus[i].settle()); err != nil {
			return fmt.Errorf("prometheus %q: %w", t.Prometheus[i].Name, err)
		}
	}
	for i := range t.Exec {
		if err := errors.Join(name(t.Exec[i].Name), t.Exec[i].settle()); err != nil {
			return fmt.Errorf("exec %q: %w", t.Exec[i].Name, err)
		}
	}
	return nil
}

func (h *HTTP) settle() error {
	setDefault(&h.Method, "GET")
	setDefault(&h.Status, 200)
	setDefault(&h.Timeout, 5*time.Second)
	setDefault(&h.Interval, time.Second)
	setDefault(&h.Concurrency, 1)
	setDefault(&h.SLA.MinSamples, 1)
	if h.Concurrency < 1 || h.Concurrency > maxConcurrency {
		return fmt.Errorf("concurrency is 1 to %d", maxConcurrency)
	}
	if h.Status < 100 || h.Status > 599 || h.SLA.MinSamples < 1 {
		return errors.New("status is 100 to 599, and minSamples at least 1")
	}
	if r := h.SLA.ErrorRate; r != nil && (*r < 0 || *r > 1) {
		return errors.New("sla.errorRate is 0 to 1")
	}
	if r := h.Regression; r.Factor != 0 && r.Factor < 1 || r.Latency < 0 || r.ErrorRate < 0 {
		return errors.New("regression.factor is 1 or more, the floors not negative")
	}
	return errors.Join(checkURL(h.URL), checkPace(h.Timeout, h.Interval))
}

func (p *Prometheus) settle() error {
	setDefault(&p.Timeout, 5*time.Second)
	setDefault(&p.Interval, 15*time.Second)
	setDefault(&p.MinSamples, 1)
	if p.Query == "" || p.MinSamples < 1 {
		return errors.New("query is empty, or minSamples below 1")
	}
	if p.Min == nil && p.Max == nil && p.Factor == 0 {
		return errors.New("set min, max or factor: nothing would be judged")
	}
	if p.Factor != 0 && p.Factor < 1 || p.Floor < 0 {
		return errors.New("factor is 1 or more, floor not negative")
	}
	return errors.Join(checkURL(p.URL), checkPace(p.Timeout, p.Interval))
}

func (e *Exec) settle() error {
	setDefault(&e.Timeout, time.Minute)
	if len(e.Argv) == 0 || !filepath.IsAbs(e.Argv[0]) {
		return errors.New("argv begins with the program's absolute path")
	}
	if e.Timeout <= 0 || e.Timeout > time.Hour {
		return errors.New("timeout is above 0 and at most 1h")
	}
	return nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("url is not http:// or https:// with a host")
	}
	if u.User != nil {
		return errors.New("url holds a user or password, which would show in logs")
	}
	return nil
}

func checkPace(timeout, interval time.Duration) error {
	if timeout <= 0 || timeout > maxTimeout {
		return fmt.Errorf("timeout is above 0 and at most %s", maxTimeout)
	}
	if interval < minInterval {
		return fmt.Errorf("interval is at least %s", minInterval)
	}
	return nil
}
