package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// silence is how long a stream may say nothing: the gateway's heartbeat
	// comes every 15 s.
	silence = 45 * time.Second
	// maxStreamLine bounds one line of a stream, in bytes: an event's leaf is
	// an envelope of at most 64 KiB.
	maxStreamLine = 1 << 20
	// Between connections.
	firstPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
)

// Watch hands each audit event from a seq on to f, in order and once, and then
// what happens next. from negative: only what happens next. It connects again
// where the stream breaks off, and ends with f's error, with ctx's, or with
// the gateway's refusal. ErrStop from f ends it without an error.
func (c *Client) Watch(ctx context.Context, from int64, f func(Event) error) error {
	next := from
	return c.again(ctx, func() (moved bool, err error) {
		before := next
		err = c.stream(ctx, &next, f)
		return next != before, err
	})
}

// again connects until a callback stops, ctx ends or the gateway refuses; the
// pauses grow while no connection moves anything.
func (c *Client) again(ctx context.Context, connect func() (moved bool, err error)) error {
	pause := firstPause
	for {
		moved, err := connect()
		var done stopped
		var refused *Error
		switch {
		case errors.As(err, &done):
			if errors.Is(done.err, ErrStop) {
				return nil
			}
			return done.err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
			return err
		}
		if moved {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// ErrStop is returned by Watch's callback when it has seen enough.
var ErrStop = errors.New("stop watching")

// stopped is the callback's own error.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }

// stream reads one connection's events and moves next on.
func (c *Client) stream(ctx context.Context, next *int64, f func(Event) error) error {
	query := url.Values{}
	if *next >= 0 {
		query.Set("from", strconv.FormatInt(*next, 10))
	}
	hello := int64(-1) // the seq before the stream's first
	return c.lines(ctx, "v1/events", query, func(line string) (err error) {
		if id, ok := strings.CutPrefix(line, "id: "); ok && *next < 0 {
			if hello, err = strconv.ParseInt(id, 10, 64); err != nil {
				return fmt.Errorf("gateway: an id is not what the API says: %w", err)
			}
		}
		if line == "" && *next < 0 && hello >= 0 {
			*next = hello + 1
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return nil
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("gateway: an event is not what the API says: %w", err)
		}
		if *next >= 0 && e.Seq != *next {
			return fmt.Errorf("gateway: event %d came where %d was due", e.Seq, *next)
		}
		*next = e.Seq + 1
		if err := f(e); err != nil {
			return stopped{err}
		}
		return nil
	})
}

// lines hands each line of one connection to f. It gives up where nothing came
// for longer than silence, f's own time not counted.
func (c *Client) lines(ctx context.Context, path string, query url.Values, f func(line string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	answer, err := c.do(ctx, http.MethodGet, path, query, http.Header{"Accept": {"text/event-stream"}}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // only read
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 64<<10), maxStreamLine)
	for lines.Scan() {
		watchdog.Stop()
		if err := f(lines.Text()); err != nil {
			return err
		}
		watchdog.Reset(silence)
	}
	return lines.Err()
}
