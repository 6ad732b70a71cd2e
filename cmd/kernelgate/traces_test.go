package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// An upgrade's spans reach an OTLP receiver, and nothing that is secret or a
// client's own words is in them.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var got strings.Builder
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got.Write(body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer receiver.Close()
	w := newWorld(t, "traces: {url: '"+receiver.URL+"/v1/traces'}\n")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "operator")
	p, c := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	m := w.propose(t, c, "one", upgrade.None)
	w.waitState(t, c, m.UpgradeID, "completed")
	_, _ = get(p.url(t) + "/a-path-of-mine?secret=1")
	p.signal(syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Fatalf("serve ends with %d", code)
	}
	mu.Lock()
	defer mu.Unlock()
	text := got.String()
	for _, name := range []string{"http v1", "http commandpad", "store update", "guard record", "guard checkpoint", "guard delegate", "deploy", string(m.UpgradeID), "kernelgate"} {
		if !strings.Contains(text, name) {
			t.Errorf("no span has %q", name)
		}
	}
	for _, secret := range []string{token, "a-path-of-mine", "secret=1", m.Rationale} {
		if strings.Contains(text, secret) {
			t.Errorf("a span has %q", secret)
		}
	}
}

func TestTracesRefused(t *testing.T) {
	for _, text := range []string{"traces: {url: x}\n", "traces: {url: 'http://u:p@x/'}\n", "traces: {sample: 2}\n"} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), "traces") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
