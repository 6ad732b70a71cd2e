package commandpad

import (
	"strings"
	"sync"
	"time"
)

// Strangers may begin to sign in, and each time a row is stored. These bound
// how many do: signAhead at once, then signRate a second, for all together.
const (
	signRate  = 50
	signAhead = 200
)

// rate is a bucket that fills by signRate a second, up to signAhead.
type rate struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

func newRate(now time.Time) *rate { return &rate{left: signAhead, last: now} }

// take reports whether there is one left. A clock that goes back gives none.
func (r *rate) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if passed := now.Sub(r.last).Seconds(); passed > 0 {
		r.left = min(signAhead, r.left+passed*signRate)
	}
	r.last = now
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}

// byStrangers reports whether a call is one that nobody has signed in for yet.
func byStrangers(path string) bool {
	return strings.HasPrefix(path, "/session/") || strings.HasPrefix(path, "/enrolment/")
}
