package pkcs11

import (
	"sync"
	"sync/atomic"
	"time"
)

// watchdog knows the calls that are inside a module and tells when one has
// been there too long. A timer for each call would cost a twentieth of a
// signature; this has one, which rests when nobody calls.
type watchdog struct {
	// stuck counts the calls that are over their limit now.
	stuck atomic.Int32

	mu      sync.Mutex
	calls   map[*call]struct{}
	ticking bool
}

type call struct {
	begun   time.Time
	limit   time.Duration
	onStuck func() // may be nil
	late    bool
}

// watch begins a call. When it has not been ended within limit (and an
// eighth), it counts as stuck and onStuck is called. A call that returns after
// all is counted out again.
func (w *watchdog) watch(limit time.Duration, onStuck func()) *call {
	c := &call{begun: time.Now(), limit: limit, onStuck: onStuck}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = map[*call]struct{}{}
	}
	w.calls[c] = struct{}{}
	if !w.ticking {
		w.ticking = true
		time.AfterFunc(limit/8, func() { w.tick(limit / 8) })
	}
	return c
}

func (w *watchdog) end(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, c)
	if c.late {
		w.stuck.Add(-1)
	}
}

// tick looks at every call and comes again while there are any.
func (w *watchdog) tick(interval time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		interval = min(interval, c.limit/8)
		if c.late || time.Since(c.begun) < c.limit {
			continue
		}
		c.late = true
		w.stuck.Add(1)
		if c.onStuck != nil {
			go c.onStuck()
		}
	}
	w.ticking = len(w.calls) > 0
	if w.ticking {
		time.AfterFunc(interval, func() { w.tick(interval) })
	}
}
