package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// log is an engine whose log grows.
type log struct {
	*engine
	mu   sync.Mutex
	size int64
}

func (l *log) LogSize(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size, nil
}

func (l *log) grow(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size += n
}

func (l *log) Events(_ context.Context, from int64, limit int) ([]api.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []api.Event
	for seq := from; seq < l.size && len(events) < limit; seq++ {
		events = append(events, api.Event{Seq: seq, Type: "upgrade.created", Leaf: []byte("leaf")})
	}
	return events, nil
}

func TestStreamMissesNothing(t *testing.T) {
	l := &log{size: 700} // more than the tail, and than a page
	g := startWith(t, func(e *engine) api.Engine { l.engine = e; return l })
	var got []int64
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := g.client(t, "auditor").Watch(ctx, 3, func(e client.Event) error {
		got = append(got, e.Seq)
		if e.Seq == 699 {
			l.grow(900) // while the stream is open
		}
		if e.Seq == 1599 {
			return client.ErrStop
		}
		return nil
	})
	check(t, err)
	for i, seq := range got {
		if seq != int64(i)+3 {
			t.Fatalf("event %d came where %d was due", seq, i+3)
		}
	}
	failed := errors.New("enough")
	if err := g.client(t, "auditor").Watch(ctx, 0, func(client.Event) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the callback's error became %v", err)
	}
}

// A stream begins where Last-Event-ID says, and ends when the gateway drains.
func TestStreamEndsOnDrain(t *testing.T) {
	l := &log{size: 5}
	g := startWith(t, func(e *engine) api.Engine { l.engine = e; return l })
	ctx, drain := context.WithCancel(t.Context())
	listener := httptest.NewUnstartedServer(nil).Listener
	served := make(chan error, 1)
	go func() { served <- api.Serve(ctx, listener, g.handler, 5*time.Second) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+"/v1/events", nil)
	check(t, err)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", "3")
	req.Header.Set("Authorization", "Bearer "+g.token(t, "op", "operator"))
	answer, err := http.DefaultClient.Do(req)
	check(t, err)
	defer answer.Body.Close()
	first := make([]byte, 200)
	n, err := answer.Body.Read(first)
	check(t, err)
	for !strings.Contains(string(first[:n]), "id: 4\n") {
		more, err := answer.Body.Read(first[n:])
		check(t, err)
		n += more
	}
	if text := string(first[:n]); !strings.HasPrefix(text, "id: 3\n\n") || !strings.Contains(text, "event: upgrade.created\ndata: {") {
		t.Errorf("got %q", text)
	}
	drain()
	select {
	case err := <-served:
		check(t, err)
	case <-time.After(4 * time.Second):
		t.Fatal("a stream kept the gateway from ending")
	}
}

func TestETags(t *testing.T) {
	g := start(t)
	c := g.client(t, "requestor")
	_, err := c.Submit(t.Context(), g.manifest(t))
	check(t, err)
	for _, path := range []string{"/v1/upgrades/" + upgradeID, "/v1/upgrades"} {
		first := g.send(t, http.MethodGet, path, "", "")
		tag := first.header.Get("ETag")
		if first.status != http.StatusOK || tag == "" {
			t.Fatalf("%s: %d, ETag %q", path, first.status, tag)
		}
		for header, want := range map[string]int{tag: 304, `"other", W/` + tag: 304, `"other"`: 200} {
			if got := g.sendWith(t, path, "If-None-Match", header); got.status != want || want == 304 && got.body != "" {
				t.Errorf("%s, If-None-Match %s: %d %s, want %d", path, header, got.status, got.body, want)
			}
		}
	}
}

// Of tokens made at once none is lost.
func TestTokensAtOnce(t *testing.T) {
	path := t.TempDir() + "/tokens"
	var all sync.WaitGroup
	texts := make([]string, 20)
	for i := range texts {
		all.Go(func() {
			var err error
			if texts[i], err = api.CreateToken(path, fmt.Sprintf("id-%d", i), "auditor"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	tokens, err := api.OpenTokens(path)
	check(t, err)
	for i, text := range texts {
		token, found, err := tokens.Find(text)
		if err != nil || !found || token.ID != envelope.ID(fmt.Sprintf("id-%d", i)) {
			t.Errorf("token %d: %v, found %t, %v", i, token.ID, found, err)
		}
	}
	if slices.Contains(texts, "") {
		t.Error("an empty token")
	}
}
