package notify

import (
	"net/netip"
	"time"
)

// Hurry shortens every wait, and takes the clock from the test.
func (n *Notifier) Hurry(now func() time.Time) {
	n.pace = pace{poll: 5 * time.Millisecond, expiry: 5 * time.Millisecond, first: 5 * time.Millisecond, longest: 20 * time.Millisecond}
	n.now = now
}

// Public is the judgement of the dialer.
func Public(ip string) bool { return public(netip.MustParseAddr(ip)) }
