package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
)

// lagFor is how long a reading holds: each submission asks.
const lagFor = 500 * time.Millisecond

// Lag is how far the stream is behind the log.
type Lag struct {
	Events int64         // sealed, and not acknowledged by the server
	Delay  time.Duration // since the oldest of them; 0 without any
	Err    error         // why this gateway's last session ended; nil while one works, or another gateway publishes
}

type monitor struct {
	mu    sync.Mutex
	taken time.Time
	last  Lag
}

// Lag reads how far the stream is behind. The reading may be half a second old.
func (b *Bus) Lag(ctx context.Context) (Lag, error) {
	b.lag.mu.Lock()
	defer b.lag.mu.Unlock()
	if !b.lag.taken.IsZero() && time.Since(b.lag.taken) < lagFor {
		return b.lag.last, nil
	}
	var l Lag
	err := b.store.View(ctx, func(r workflow.Reader) error {
		l = Lag{}
		_, sealed, err := r.Checkpoint()
		if errors.Is(err, workflow.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		next, err := r.Cursor(cursorNext)
		if err != nil || next >= sealed {
			return err
		}
		l.Events = sealed - next
		oldest, err := r.Events(next, 1)
		if err == nil && len(oldest) > 0 {
			l.Delay = max(0, b.now().Sub(oldest[0].Event.Time.Std()))
		}
		return err
	})
	if err != nil {
		return Lag{}, err
	}
	b.mu.Lock()
	l.Err = b.last
	b.mu.Unlock()
	b.lag.last, b.lag.taken = l, time.Now()
	return l, nil
}

// Admit refuses new work while the stream is further behind than it may be
// (workflow.ErrHeld): nothing is to happen that outsiders do not see.
func (b *Bus) Admit(ctx context.Context) error {
	l, err := b.Lag(ctx)
	if err != nil {
		return err
	}
	if l.Events > b.MaxLag || l.Delay > b.MaxDelay {
		return fmt.Errorf("%w: the audit bus is %d events and %s behind, where %d and %s are allowed; it goes on once the bus has caught up",
			workflow.ErrHeld, l.Events, l.Delay.Round(time.Second), b.MaxLag, b.MaxDelay)
	}
	return nil
}

// Check is Admit with the cause, for those who run the gateway.
func (b *Bus) Check(ctx context.Context) error {
	err := b.Admit(ctx)
	if err == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(err, b.last)
}
