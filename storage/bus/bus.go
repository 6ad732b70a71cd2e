// Package bus publishes the audit log to NATS JetStream, so that others see
// what happens while it happens, and keep it. The log in the store is the
// truth, and the stream a copy of it: an event is published once a checkpoint
// seals it, in order, with all that its reader needs to verify it by itself.
//
// How far the stream has come is read from the stream's own end whenever a
// session with the server begins. The cursor in the store says it meanwhile:
// a server that lost what it had acknowledged, or a stream made anew, is given
// the missing events again, whatever the cursor says. docs/audit-bus.md
// describes the messages and the guarantees.
package bus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Config names the stream and the bounds.
type Config struct {
	URL         string      // nats:// or tls://, several with commas between; without names or passwords
	Credentials string      // a file: a NATS credentials file or an nkey's seed; empty: none
	TLS         *tls.Config // nil: none but what the URL asks for
	Stream      string      // made where it is missing; of this Kernel alone
	Replicas    int         // of a stream that is made
	// MaxLag is the most sealed events, and MaxDelay the longest time, that the
	// stream may be behind while new work is taken.
	MaxLag   int64
	MaxDelay time.Duration
}

// Bus publishes one store's log. It is safe for concurrent use; Run is called once.
type Bus struct {
	Config
	store  workflow.Store
	logger *slog.Logger
	now    func() time.Time
	pace   pace
	id     int64 // of this publisher, among those on the same store

	lag  monitor
	mu   sync.Mutex
	last error // of the last session; nil while one works
}

// pace is how often is looked and tried again, and how long is waited.
type pace struct{ poll, check, first, longest, ack, lease time.Duration }

var ordinary = pace{
	poll: 50 * time.Millisecond, check: 5 * time.Second, first: 100 * time.Millisecond, longest: 5 * time.Second,
	ack: 10 * time.Second, lease: 30 * time.Second,
}

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// Check refuses what can never work, and what would not be safe.
func (c *Config) Check() error {
	if err := checkURL(c.URL); err != nil {
		return err
	}
	if !streamName.MatchString(c.Stream) {
		return fmt.Errorf("stream: %q is no stream's name: letters, digits, - and _", c.Stream)
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		return errors.New("replicas: 1 to 5")
	}
	if c.MaxLag < 1 || c.MaxDelay <= 0 {
		return errors.New("maxLag and maxDelay must be positive")
	}
	return nil
}

// New checks the configuration. The server is not asked for anything before Run.
func New(c Config, store workflow.Store, logger *slog.Logger) (*Bus, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	b := &Bus{Config: c, store: store, logger: logger, now: time.Now, pace: ordinary}
	b.id = int64(binary.BigEndian.Uint64(raw[:])>>11) | 1 // below 2^53, and never 0
	return b, nil
}

// Run publishes until ctx ends. Of several on one store one publishes at a time.
func (b *Bus) Run(ctx context.Context) error {
	defer b.release(context.WithoutCancel(ctx))
	wait := b.pace.first
	for ctx.Err() == nil {
		began := time.Now()
		err := b.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errNotHeld) {
			b.tell(nil)
			pause(ctx, b.pace.lease/10)
			continue
		}
		b.tell(err)
		if time.Since(began) > b.pace.longest {
			wait = b.pace.first
		}
		b.logger.WarnContext(ctx, "the audit bus is interrupted; it is tried again", "in", wait, "err", err)
		pause(ctx, wait)
		wait = min(2*wait, b.pace.longest)
	}
	return ctx.Err()
}

func (b *Bus) tell(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = err
}

// kernelID is the log's; empty while it has no event.
func kernelID(r workflow.Reader) (envelope.ID, error) {
	first, err := r.Events(0, 1)
	if err != nil || len(first) == 0 {
		return "", err
	}
	return first[0].Event.KernelID, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
