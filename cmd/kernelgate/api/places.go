package api

import (
	"net/http"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// maxStreamsEach is how many streams one holder may have open, so that one
// leaked token cannot take the places of all the others.
const maxStreamsEach = 1000

// places counts each holder's open streams.
type places struct {
	mu    sync.Mutex
	taken map[envelope.ID]int
}

func newPlaces() *places { return &places{taken: map[envelope.ID]int{}} }

// take gives the holder of a request a place; leave gives it back.
func (p *places) take(c echo.Context) (leave func(), err error) {
	who := holder(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[who] >= maxStreamsEach {
		return nil, refuse(http.StatusServiceUnavailable, CodeUnavailable, "%s has %d streams open already", who, maxStreamsEach)
	}
	p.taken[who]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.taken[who]--; p.taken[who] == 0 {
			delete(p.taken, who)
		}
	}, nil
}
