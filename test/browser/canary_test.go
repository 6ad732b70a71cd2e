package browser_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/canary"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// allThenNone is a line at the foot, and then one at the top.
var allThenNone = regexp.MustCompile(`^M0 130(H\d+|M\d+ 130)+(V14|M\d+ 14)(H\d+|M\d+ 14)+$`)

// A real canary of a real server that begins to fail; its charts are drawn.
func TestTheCanaryIsDrawn(t *testing.T) {
	var live atomic.Value // the path of the page that is live
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if page, err := os.ReadFile(live.Load().(string)); err == nil && string(page) == "2" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer site.Close()
	limit := 0.01
	watch, err := canary.New(canary.Config{"web": {Window: 400 * time.Millisecond, Baseline: 200 * time.Millisecond, HTTP: []canary.HTTP{{Name: "front page", URL: site.URL, Interval: 20 * time.Millisecond,
		SLA: canary.SLA{ErrorRate: &limit, P99: 5 * time.Second, MinSamples: 3}}}}})
	check(t, err)
	w := newWorld(t, func(w *world) { w.watch = watch })
	live.Store(filepath.Join(w.dir, "web", "current", "index.html"))
	base := w.through(t, change{rationale: "The first page", page: "1", base: upgrade.None, components: []string{"web"}})
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	p.open("/upgrades/" + string(base.UpgradeID))
	p.sees("It held every limit")
	p.shot("canary-passed")
	m, digest := w.propose(t, change{rationale: "The second page", page: "2", base: upgrade.RevisionOf(base.PatchHash), components: []string{"web"}})
	w.approveAll(t, m, digest, "ryan", "sec-eng", "divlead-1")
	w.until(t, m.UpgradeID, workflow.StateRollbackScheduled)
	p.open("/upgrades/" + string(m.UpgradeID))
	p.sees("It did not hold its limits")
	p.sees("100 %, not held")
	// Steps over both windows: none of the first page's failed, each of the second's did.
	if rate := eval[string](p, `document.querySelector("#canary svg path.errors").getAttribute("d")`); !allThenNone.MatchString(rate) {
		t.Errorf("the error rate is drawn as %s", rate)
	}
	if n := eval[int](p, `document.querySelectorAll("#canary svg path").length`); n != 4 {
		t.Errorf("%d lines, not 4: the error rate, p50, p95 and p99", n)
	}
	if n := eval[int](p, `document.querySelectorAll("#canary svg line.limit").length`); n != 2 {
		t.Errorf("%d lines of limits, not 2", n)
	}
	p.shot("canary-failed")
}
