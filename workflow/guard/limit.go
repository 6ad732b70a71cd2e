package guard

import (
	"net/http"
)

// The guard does one thing at a time; these bound what waits for it, and so
// the memory that waiting costs. Who finds no place is told to come again.
const (
	maxWaiting = 64      // calls at one time
	maxLarge   = 4       // of them with a body over largeBody
	largeBody  = 1 << 20 // bytes
)

// limiter gives away places.
type limiter struct{ all, large chan struct{} }

func newLimiter() *limiter {
	return &limiter{make(chan struct{}, maxWaiting), make(chan struct{}, maxLarge)}
}

// enter takes a place for a request; leave gives it back. A body whose length
// is not told counts as large.
func (l *limiter) enter(r *http.Request) (leave func(), ok bool) {
	places := []chan struct{}{l.all}
	if r.ContentLength < 0 || r.ContentLength > largeBody {
		places = append(places, l.large)
	}
	for i, p := range places {
		select {
		case p <- struct{}{}:
		default:
			for _, taken := range places[:i] {
				<-taken
			}
			return nil, false
		}
	}
	return func() {
		for _, p := range places {
			<-p
		}
	}, true
}
