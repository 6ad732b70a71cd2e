package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// tally counts the log as it grows, for metrics: its events by type, and the
// signatures that they account for, to be compared with the guard's own counts.
// docs/guard.md, "Reconciliation", is its table.
type tally struct {
	mu     sync.Mutex
	next   int64 // the event that is counted next
	newest envelope.Time
	types  map[string]int64
	signed map[string]int64         // by kind, as in guardCounts
	asked  map[envelope.UUID]string // what the guard is asked about an upgrade, as a kind
	guard  map[string]int64         // what the guard says
	lag    map[envelope.ID]int64    // events that a receiver of notifications has not had
}

const (
	kindRecord       = "record"
	kindRatification = "ratification"
	kindRollback     = "rollback"
	kindDelegation   = "delegation"
	tallyEvery       = 5 * time.Second
	tallyPage        = 1000
)

func newTally() *tally {
	return &tally{types: map[string]int64{}, signed: map[string]int64{kindRecord: 0, kindRatification: 0, kindRollback: 0, kindDelegation: 0},
		asked: map[envelope.UUID]string{}, guard: map[string]int64{}, lag: map[envelope.ID]int64{}}
}

// add counts one event.
func (t *tally) add(e auditlog.Event) {
	t.next, t.newest = e.Seq+1, e.Time
	t.types[e.Type]++
	switch e.Type {
	case auditlog.UpgradeApplying:
		t.ask(e.UpgradeID, kindRecord)
	case auditlog.UpgradeRatified:
		t.ask(e.UpgradeID, kindRatification)
	case auditlog.GuardDenied:
		if kind, ok := t.asked[e.UpgradeID]; ok {
			t.signed[kind]--
			delete(t.asked, e.UpgradeID)
		}
	case auditlog.UpgradeApplied, auditlog.UpgradeApplyFailed, auditlog.UpgradeCompleted:
		delete(t.asked, e.UpgradeID)
	case auditlog.UpgradeCreated:
		if e.Actor == upgrade.KernelID {
			t.signed[kindRollback]++
		}
	case auditlog.KeyDelegated:
		t.signed[kindDelegation]++
	}
}

// ask: the guard is asked, and counts as having signed unless it denies.
func (t *tally) ask(id envelope.UUID, kind string) {
	t.signed[kind]++
	t.asked[id] = kind
}

// watchLog keeps the tally until ctx ends. What it cannot read it reads later.
func (g *gateway) watchLog(ctx context.Context) {
	for {
		if err := g.count(ctx); err != nil && ctx.Err() == nil {
			g.log.WarnContext(ctx, "the log could not be counted for metrics; it is tried again", "err", err)
		}
		if !pause(ctx, tallyEvery) {
			return
		}
	}
}

func (g *gateway) count(ctx context.Context) error {
	for more := true; more; {
		err := g.store.View(ctx, func(r workflow.Reader) error {
			g.tally.mu.Lock()
			defer g.tally.mu.Unlock()
			events, err := r.Events(g.tally.next, tallyPage)
			for _, e := range events {
				g.tally.add(e.Event)
			}
			more = len(events) == tallyPage
			if err != nil || more {
				return err
			}
			return g.countReceivers(r)
		})
		if err != nil {
			return err
		}
	}
	status, err := g.guard.Status(ctx)
	if err != nil {
		return nil // that the guard is away is said elsewhere; its last counts stay
	}
	g.tally.mu.Lock()
	defer g.tally.mu.Unlock()
	c := status.Counts
	g.tally.guard = map[string]int64{kindRecord: c.Records, kindRatification: c.Ratifications, kindRollback: c.Rollbacks, kindDelegation: c.Delegations, "checkpoint": c.Checkpoints}
	return nil
}

func (g *gateway) countReceivers(r workflow.Reader) error {
	for i := range g.config.Notifications.Receivers {
		name := g.config.Notifications.Receivers[i].Name
		next, err := r.Cursor("notify/" + name)
		if err != nil {
			return err
		}
		g.tally.lag[envelope.ID(name)] = g.tally.next - next
	}
	return nil
}

var (
	eventsDesc = prometheus.NewDesc("kernelgate_log_events", "Audit events, by type.", []string{"type"}, nil)
	newestDesc = prometheus.NewDesc("kernelgate_log_newest_event_timestamp_seconds", "Time of the newest audit event; a gateway that works logs at least one in limits.heartbeat.", nil, nil)
	signedDesc = prometheus.NewDesc("kernelgate_log_signatures", "Signatures of the Kernel that the log's events account for, by kind.", []string{"kind"}, nil)
	guardDesc  = prometheus.NewDesc("kernelgate_guard_signatures", "Signatures that the guard gave away, as it says itself, by kind.", []string{"kind"}, nil)
	notifyDesc = prometheus.NewDesc("kernelgate_notifications_lag_events", "Audit events that a receiver of notifications was not told yet.", []string{"receiver"}, nil)
)

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{eventsDesc, newestDesc, signedDesc, guardDesc, notifyDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	if t.next > 0 {
		gauge(newestDesc, t.newest.Unix())
	}
	gauge(eventsDesc, t.types[auditlog.GuardDenied], auditlog.GuardDenied) // also while there is none: alarms look at it
	for kind, n := range t.types {
		if kind != auditlog.GuardDenied {
			gauge(eventsDesc, n, kind)
		}
	}
	for kind, n := range t.signed {
		gauge(signedDesc, n, kind)
	}
	for kind, n := range t.guard {
		gauge(guardDesc, n, kind)
	}
	for name, n := range t.lag {
		gauge(notifyDesc, n, string(name))
	}
}
