package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// hook is a webhook's receiver, and a site for a canary to look at.
type hook struct {
	*httptest.Server
	mu    sync.Mutex
	types []string // of the events that came, in order
	site  int      // the status of the site
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{site: http.StatusOK}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		_, rest, _ := strings.Cut(string(body), `"type":"com.kernelgate.`)
		kind, _, _ := strings.Cut(rest, `"`)
		h.types = append(h.types, kind)
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		w.WriteHeader(h.site)
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

func (h *hook) got() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.types, " ")
}

func (h *hook) answer(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.site = status
}

// serve watches what it applied and tells people, through a restart.
func TestCanaryAndNotifications(t *testing.T) {
	h := newHook(t)
	w := newWorld(t, strings.ReplaceAll(`canary:
  web:
    window: 400ms
    baselineWindow: 100ms
    http: [{name: page, url: URL, interval: 20ms, sla: {errorRate: 0.1, minSamples: 5}}]
notifications:
  allow: [127.0.0.1]
  receivers: [{name: ops, webhook: {url: URL/hook, secretFile: hook.secret}}]
`, "URL", h.URL))
	must(t, os.WriteFile(filepath.Join(w.dir, "hook.secret"), []byte("whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600))
	w.mustInit(t)
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	first := w.propose(t, c, "one", upgrade.None)
	w.waitState(t, c, first.UpgradeID, "completed")
	want := "upgrade.created upgrade.pending_approval approval.submitted approval.submitted approval.submitted upgrade.quorum_reached upgrade.applied upgrade.canary_passed upgrade.completed"
	eventually(t, "every step is told", func() bool { return strings.HasSuffix(h.got(), want) })
	p.signal(15)
	if code := p.wait(t); code != 0 {
		t.Fatalf("serve ends with %d", code)
	}
	h.answer(http.StatusInternalServerError)
	p, c = w.serve(t, w.token(t, "tech-lead-2", "operator"))
	eventually(t, "ready again", isReady(p.url(t)))
	second := w.propose(t, c, "two", upgrade.RevisionOf(first.PatchHash))
	eventually(t, "the failed canary is told", func() bool { return strings.Contains(h.got(), "upgrade.canary_failed") })
	w.waitState(t, c, second.UpgradeID, "rollback_scheduled")
	if n := strings.Count(h.got(), "upgrade.canary_passed"); n != 1 {
		t.Errorf("the restart tells again: %s", h.got())
	}
}
