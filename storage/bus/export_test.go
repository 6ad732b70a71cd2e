package bus

import "time"

// Hurry makes a bus look and try again at the pace of tests.
func (b *Bus) Hurry(ack time.Duration, now func() time.Time) {
	b.pace = pace{
		poll: 2 * time.Millisecond, check: 50 * time.Millisecond, first: 5 * time.Millisecond, longest: 50 * time.Millisecond,
		ack: ack, lease: 2 * time.Second,
	}
	if now != nil {
		b.now = now
	}
}

// CursorNext is the name of the bus's cursor.
const CursorNext = cursorNext
