// Package notify tells people what happened: it follows the audit log and
// sends to webhooks, Slack and mail. Every receiver has its own place in the
// log, kept in the store, so that a dead one holds up neither the workflow nor
// the others, and a restart goes on where each stood. Of several gateways one
// sends to a receiver. A message may come twice.
package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// sendTimeout bounds one attempt.
const sendTimeout = 15 * time.Second

// Seats says how the five approvers stand towards an upgrade now.
type Seats func(ctx context.Context, id envelope.UUID) ([]upgrade.Seat, error)

// Notifier runs the receivers of one configuration.
type Notifier struct {
	store     workflow.Store
	seats     Seats
	now       func() time.Time
	logger    *slog.Logger
	link      string
	giveUp    time.Duration
	pace      pace
	holder    int64 // names this notifier in leases
	receivers []*receiver
}

// pace is how often is looked and tried again.
type pace struct{ poll, expiry, first, longest time.Duration }

// sender makes one attempt. errRefused in its error: another is of no use.
type sender interface {
	send(ctx context.Context, m Message) error
}

type receiver struct {
	name   string
	wants  map[string]bool // nil: every type
	sender sender
	until  int64 // the lease's end, Unix seconds; 0 where there is none
}

// New checks the configuration and reads its secrets. logger nil is slog.Default.
func New(c Config, store workflow.Store, seats Seats, logger *slog.Logger) (*Notifier, error) {
	if err := c.settle(); err != nil {
		return nil, fmt.Errorf("notifications: %w", err)
	}
	if logger == nil {
		logger = slog.Default()
	}
	n := &Notifier{
		store: store, seats: seats, now: time.Now, holder: newHolder(), logger: logger, link: c.Link, giveUp: c.GiveUpAfter,
		pace: pace{poll: time.Second, expiry: time.Minute, first: time.Second, longest: 5 * time.Minute},
	}
	for i := range c.Receivers {
		r := &c.Receivers[i]
		s, err := n.sender(&c, r)
		if err != nil {
			return nil, fmt.Errorf("notifications: receiver %s: %w", r.Name, err)
		}
		out := &receiver{name: r.Name, sender: s}
		for _, e := range r.Events {
			if out.wants == nil {
				out.wants = map[string]bool{}
			}
			out.wants[e] = true
		}
		n.receivers = append(n.receivers, out)
	}
	return n, nil
}

func (n *Notifier) sender(c *Config, r *Receiver) (sender, error) {
	d := dialer{allow: c.Allow}
	switch {
	case r.Webhook != nil:
		text, err := readSecret(r.Webhook.SecretFile)
		if err != nil {
			return nil, err
		}
		secret, err := parseSecret(text)
		if err != nil {
			return nil, err
		}
		p, err := newPoster(r.Webhook.URL, d, r.Webhook.CAFile)
		return &webhook{poster: p, secret: secret, now: n.now}, err
	case r.Slack != nil:
		address, err := readSecret(r.Slack.URLFile)
		if err != nil {
			return nil, err
		}
		if _, err := parseURL(address); err != nil {
			return nil, err
		}
		p, err := newPoster(address, d, r.Slack.CAFile)
		return &slack{p}, err
	}
	m := &mailer{SMTP: *r.SMTP, dialer: d, people: c.People, auditors: c.Auditors}
	var err error
	if m.tls, err = tlsOf(r.SMTP.CAFile); err != nil {
		return nil, err
	}
	if r.SMTP.PasswordFile != "" {
		m.password, err = readSecret(r.SMTP.PasswordFile)
	}
	return m, err
}

// readSecret reads a file of one line.
func readSecret(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, 4097))
	if err != nil {
		return "", err
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 || len(data) > 4096 || bytes.ContainsAny(data, "\r\n") {
		return "", fmt.Errorf("%s does not hold one line", name)
	}
	return string(data), nil
}

func tlsOf(caFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	return c, nil
}

// Run follows the log until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, r := range n.receivers {
		all.Go(func() { n.serve(ctx, r) })
	}
	all.Wait()
	return ctx.Err()
}

func (n *Notifier) serve(ctx context.Context, r *receiver) {
	defer n.release(ctx, r)
	var warned time.Time
	wait := n.pace.poll
	for ctx.Err() == nil {
		more, err := false, n.hold(ctx, r)
		if err == nil {
			more, err = n.follow(ctx, r)
		}
		if err == nil && time.Since(warned) >= n.pace.expiry {
			err = n.warn(ctx, r)
			warned = time.Now()
		}
		switch {
		case errors.Is(err, errLost):
			wait, r.until = n.pace.poll, 0
		case err != nil && ctx.Err() == nil:
			// The store's trouble: nothing was skipped.
			n.logger.WarnContext(ctx, "notifications wait for the store", "receiver", r.name, "err", err)
			wait = min(2*wait, n.pace.longest)
		case more:
			wait = 0
		default:
			wait = n.pace.poll
		}
		pause(ctx, wait)
		wait = max(wait, n.pace.poll)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// deliver tries until the receiver takes the message, refuses it for good, or
// it is too old to be of use. An error is ctx's, the store's or errLost.
func (n *Notifier) deliver(ctx context.Context, r *receiver, m Message) error {
	wait := n.pace.first
	for attempt := 1; ; attempt++ {
		if err := n.hold(ctx, r); err != nil {
			return err
		}
		err := r.sender.send(ctx, m)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		old := n.now().Sub(m.Time.Std()) > n.giveUp
		if errors.Is(err, errRefused) || old {
			n.logger.ErrorContext(ctx, "a notification was given up", "receiver", r.name, "message", m.ID, "type", m.Type, "attempts", attempt, "err", err)
			return nil
		}
		n.logger.WarnContext(ctx, "a notification is sent again", "receiver", r.name, "message", m.ID, "type", m.Type, "attempt", attempt, "in", wait, "err", err)
		pause(ctx, wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait = min(2*wait, n.pace.longest)
	}
}
