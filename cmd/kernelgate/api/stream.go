package api

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

const (
	streamType = "text/event-stream"
	// heartbeat shows that a stream lives where nothing happens.
	heartbeat = 15 * time.Second
	// followEvery is how often the log's end is looked at for all streams.
	followEvery = 200 * time.Millisecond
	maxStreams  = 4000
	// tailSize is how many of the newest events streams share. Who is further
	// behind reads from the store; no stream has a buffer of its own.
	tailSize = 512
)

func wantsStream(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		if media, _, err := mime.ParseMediaType(part); err == nil && media == streamType {
			return true
		}
	}
	return false
}

// streamEvents writes events until the client leaves, is too slow, or the
// gateway drains.
func (s *server) streamEvents(c echo.Context, p ListEventsParams) error {
	ctx := c.Request().Context()
	next, err := s.streamStart(ctx, p)
	if err != nil {
		return err
	}
	leave, err := s.places.take(c)
	if err != nil {
		return err
	}
	defer leave()
	if !s.stream.join() {
		return refuse(http.StatusServiceUnavailable, CodeUnavailable, "%d streams are open already", maxStreams)
	}
	defer s.stream.leave()
	return s.stream.write(ctx, next, s.startStream(c))
}

// startStream begins a stream's answer and returns what writes to it. Whoever
// is not let in any more is not written to: their session is over, their account
// closed or their token gone. That is looked at once between two heartbeats.
func (s *server) startStream(c echo.Context) func(text string) error {
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, streamType)
	header.Set(echo.HeaderCacheControl, "no-store")
	header.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(c.Response())
	_ = control.SetReadDeadline(time.Time{}) // the request has no body, and must not end for its age
	c.Response().WriteHeader(http.StatusOK)
	looked := time.Now()
	return func(text string) error {
		if now := time.Now(); now.Sub(looked) > heartbeat/2 {
			if _, err := s.identify(c.Request()); err != nil {
				return err
			}
			looked = now
		}
		_ = control.SetWriteDeadline(time.Now().Add(stallTime)) // as in upload.Read
		if _, err := c.Response().Write([]byte(text)); err != nil {
			return err
		}
		return control.Flush()
	}
}

// streamStart is the first seq of a stream.
func (s *server) streamStart(ctx context.Context, p ListEventsParams) (int64, error) {
	if p.LastEventID != nil {
		last, err := strconv.ParseInt(*p.LastEventID, 10, 64)
		if err != nil || last < 0 || last > envelope.MaxInt {
			return 0, refuse(http.StatusBadRequest, CodeBadRequest, "Last-Event-ID is no seq")
		}
		return last + 1, nil
	}
	if p.From != nil {
		return *p.From, nil
	}
	return s.Engine.LogSize(ctx)
}

// follower reads the end of the log once for all streams, while there are any.
type follower struct {
	engine Engine

	mu      sync.Mutex
	streams int
	stop    context.CancelFunc
	tail    []Event       // the newest, without a gap
	grown   chan struct{} // closed when the log grew
}

func (f *follower) join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams == maxStreams {
		return false
	}
	f.streams++
	if f.streams == 1 {
		// The loop is of all streams: it outlives the request that starts it.
		var ctx context.Context
		ctx, f.stop = context.WithCancel(context.Background())
		f.tail, f.grown = nil, make(chan struct{})
		go f.follow(ctx, f.grown)
	}
	return true
}

func (f *follower) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams--; f.streams == 0 {
		f.stop()
	}
}

// follow extends the tail. An error is not told: readers of the store meet it,
// and the next look may succeed.
func (f *follower) follow(ctx context.Context, grown chan struct{}) {
	next := int64(-1)
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if next < 0 {
			if size, err := f.engine.LogSize(ctx); err == nil {
				next = size
			}
		} else if events, err := f.engine.Events(ctx, next, maxLimit); err == nil && len(events) > 0 {
			next = events[len(events)-1].Seq + 1
			grown = f.extend(grown, events)
			continue
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (f *follower) extend(grown chan struct{}, events []Event) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grown != grown {
		return grown // the last stream left and another came: that one has its own loop
	}
	tail := append(f.tail, events...)
	f.tail = tail[max(0, len(tail)-tailSize):]
	close(grown)
	f.grown = make(chan struct{})
	return f.grown
}

// since are events from a seq on, and what closes when there are more. known
// is false where the tail does not reach back so far.
func (f *follower) since(seq int64) (events []Event, known bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tail) == 0 || seq < f.tail[0].Seq {
		return nil, false, f.grown
	}
	skip := min(seq-f.tail[0].Seq, int64(len(f.tail)))
	return append([]Event(nil), f.tail[skip:]...), true, f.grown
}

// write sends every event from next on, and heartbeats between them.
func (f *follower) write(ctx context.Context, next int64, send func(string) error) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	// Where it begins, so that a client which is cut off before the first event
	// misses none.
	hello := ": kernelgate\n\n"
	if next > 0 {
		hello = fmt.Sprintf("id: %d\n\n", next-1)
	}
	if err := send(hello); err != nil {
		return nil // the client has left; that is how streams end
	}
	for {
		events, known, more := f.since(next)
		if !known {
			var err error
			if events, err = f.engine.Events(ctx, next, maxLimit); err != nil {
				return err
			}
		}
		var text strings.Builder
		for i := range events {
			data, err := json.Marshal(events[i])
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, "id: %d\nevent: %s\ndata: %s\n\n", events[i].Seq, events[i].Type, data)
			next = events[i].Seq + 1
		}
		if len(events) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-draining(ctx):
				return nil
			case <-more:
				continue
			case <-beat.C:
				text.WriteString(": alive\n\n")
			}
		}
		if err := send(text.String()); err != nil {
			return nil // as above
		}
	}
}
