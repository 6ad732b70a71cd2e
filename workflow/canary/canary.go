// Package canary measures a target before and after an apply: HTTP probes,
// Prometheus queries and the operator's smoke tests, against the limits of the
// configuration and against the target's own baseline. docs/canary.md says
// what each number is.
package canary

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Canary watches the targets of one configuration. It is safe for concurrent use.
type Canary struct {
	targets map[string]Target
}

var _ workflow.Canary = (*Canary)(nil)

// New checks the configuration. A target that is not in it is not watched.
func New(c Config) (*Canary, error) {
	targets := make(map[string]Target, len(c))
	for name, t := range c {
		var id envelope.ID
		if err := id.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("canary: %w", err)
		}
		t.HTTP, t.Prometheus, t.Exec = slices.Clone(t.HTTP), slices.Clone(t.Prometheus), slices.Clone(t.Exec)
		if err := t.settle(); err != nil {
			return nil, fmt.Errorf("canary of %s: %w", name, err)
		}
		targets[name] = t
	}
	return &Canary{targets: targets}, nil
}

// check is one thing that is measured.
type check interface {
	// measure blocks until the window's end, or until the one measurement is made.
	measure(ctx context.Context, window time.Duration) Measurement
	// judge names what is wrong; before is nil where there is no baseline.
	judge(now, before *Measurement) []string
}

// Baseline measures the target as it is for its baseline window. Smoke tests
// are not part of it.
func (c *Canary) Baseline(ctx context.Context, target envelope.ID) ([]byte, error) {
	t, ok := c.targets[string(target)]
	if !ok {
		return nil, nil
	}
	report, err := run(ctx, target, t.Baseline, t.probes())
	if err != nil {
		return nil, err
	}
	return envelope.Canonical(report)
}

// Watch measures the target for its window and judges it. A baseline that is
// nil, or that lacks a check, compares nothing.
func (c *Canary) Watch(ctx context.Context, target envelope.ID, baseline []byte) (workflow.CanaryResult, error) {
	t, ok := c.targets[string(target)]
	if !ok {
		return workflow.CanaryResult{Passed: true}, nil
	}
	var before Report
	if baseline != nil {
		if err := envelope.DecodeCanonical(baseline, maxReport, &before); err != nil {
			return workflow.CanaryResult{}, fmt.Errorf("canary: the stored baseline: %w", err)
		}
	}
	checks := t.probes()
	for i := range t.Exec {
		checks = append(checks, &program{Exec: t.Exec[i], target: target})
	}
	report, err := run(ctx, target, t.Window, checks)
	if err != nil {
		return workflow.CanaryResult{}, err
	}
	result := report.judge(checks, before.Checks)
	result.Report, err = envelope.Canonical(report)
	return result, err
}

func (t Target) probes() []check {
	var checks []check
	for i := range t.HTTP {
		checks = append(checks, &prober{HTTP: t.HTTP[i]})
	}
	for i := range t.Prometheus {
		checks = append(checks, &query{Prometheus: t.Prometheus[i]})
	}
	return checks
}

// run measures all checks side by side. An error is ctx's: a window that was
// broken off says nothing.
func run(ctx context.Context, target envelope.ID, window time.Duration, checks []check) (*Report, error) {
	report := &Report{Target: target, From: envelope.TimeOf(time.Now()), Checks: make([]Measurement, len(checks))}
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { report.Checks[i] = c.measure(ctx, window) })
	}
	all.Wait()
	report.Until = envelope.TimeOf(time.Now())
	return report, ctx.Err()
}

// every calls f at each interval until the window ends. What f began before
// the end may finish after it.
func every(ctx context.Context, interval, window time.Duration, f func()) {
	end := time.NewTimer(window)
	defer end.Stop()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-tick.C:
			select { // both are due: the window's end counts
			case <-end.C:
				return
			default:
			}
		}
	}
}
