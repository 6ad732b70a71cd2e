package browser_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// tour is a gateway with something on every page.
type tour struct {
	*world
	p      *person
	places map[string]string // path by name
}

func newTour(t *testing.T) *tour {
	w := newWorld(t)
	before := w.through(t, change{rationale: "The page before", page: "<h1>0</h1>\n", base: upgrade.None, components: []string{"web"}})
	base := w.through(t, change{rationale: "The first page", page: "<h1>1</h1>\n", base: upgrade.RevisionOf(before.PatchHash), components: []string{"web"}})
	on := upgrade.RevisionOf(base.PatchHash)
	blocked, _ := w.propose(t, change{rationale: "Open the vault", page: "2", base: on, components: []string{"vault"}})
	paused, _ := w.propose(t, change{rationale: "A page with a test", page: "3", base: on, components: []string{"web"}, tests: []string{"unit", "load"}})
	w.test(t, paused.PatchHash, "unit", "FAILED")
	pending, _ := w.propose(t, change{rationale: "Open on Mondays\nThe old page says closed.", page: "<h1>1</h1>\n<p>Open on Mondays</p>\n", base: on, components: []string{"web", "shop"}})
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	of := func(m upgrade.Manifest) string { return "/upgrades/" + string(m.UpgradeID) }
	return &tour{w, p, map[string]string{
		"inbox": "/", "search": "/?q=mondays", "nothing found": "/?q=no+such+thing", "completed": of(base), "blocked": of(blocked), "paused": of(paused), "pending": of(pending),
		"approve": of(pending) + "/approve", "approve blocked": of(blocked) + "/approve", "emergency": of(pending) + "/emergency", "new": "/new", "rollback": "/rollback?of=" + string(base.UpgradeID),
		"registry": "/registry", "registry key": "/registry/key", "registry sign": "/registry/sign", "audit": "/audit", "audit verified": "/audit?verify=1", "audit filtered": "/audit?type=" + auditlog.UpgradeApplied,
		"system": "/system", "nothing here": "/upgrades/none",
	}}
}

// axe is axe-core's source, which npm ci has put beside the tests.
func axe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err == nil {
		return string(source)
	}
	if os.Getenv("CI") != "" {
		t.Fatal("axe-core is missing; make deps runs npm ci in test/browser")
	}
	t.Skip("axe-core is missing: npm ci in test/browser")
	return ""
}

const findings = `axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => v.id + ": " + v.help + ": " +
	v.nodes.map((n) => n.target.join(" ") + " " + (n.any[0]?.message || n.all[0]?.message || n.none[0]?.message || "")).join(" | ")).join("\n"))`

// Every page, wide and narrow, light and dark: no violation of axe-core's rules,
// nothing wider than the window. The pictures are for people to look at.
func TestEveryPageIsAccessible(t *testing.T) {
	source := axe(t)
	w := newTour(t)
	check := func(name, path string) {
		w.p.open(path)
		for _, look := range []struct {
			width int64
			dark  bool
			name  string
		}{{1280, false, "light"}, {1280, true, "dark"}, {360, true, "narrow-dark"}, {360, false, "narrow"}} {
			w.p.size(look.width, look.dark)
			eval[any](w.p, "void (0, eval)("+strconv.Quote("")+")")
			w.p.run(chromedp.Evaluate[chromedp.Void](source))
			if found := eval[string](w.p, findings); found != "" {
				t.Errorf("%s, %s:\n%s", name, look.name, found)
			}
			if over := eval[int](w.p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
				t.Errorf("%s, %s: %d pixels wider than the window", name, look.name, over)
			}
			if look.name == "light" || look.name == "narrow-dark" {
				w.p.shot("page-" + strings.ReplaceAll(name, " ", "-") + "-" + look.name)
			}
		}
		w.p.size(1280, false)
	}
	for name, path := range w.places {
		check(name, path)
	}
	w.p.open("/")
	w.p.keys("?")
	w.p.waits(`document.querySelector("dialog[open]") !== null`)
	w.p.run(chromedp.Evaluate[chromedp.Void](source))
	if found := eval[string](w.p, findings); found != "" {
		t.Errorf("the help:\n%s", found)
	}
	w.p.shot("page-help")
	w.p.keys("\x1b")
	w.p.signOut()
	check("sign in", "/sign-in")
	check("enrol", "/enrol")
}

// shifts says what has moved by itself: how much, what, from where to where.
const shifts = `new Promise((done) => { const moved = []; new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput && e.value > 1e-4) // a thousandth of what counts as good
	moved.push(e.value + " " + e.sources.map((s) => (s.node?.outerHTML || s.node?.textContent || "?").slice(0, 120) + " " + JSON.stringify([s.previousRect, s.currentRect].map((r) => [r.x, r.y, r.width, r.height]))).join("; ")); })
	.observe({ type: "layout-shift", buffered: true }); setTimeout(() => done(moved.join("\n")), 200); })`

// Nothing breaks the content security policy, throws, moves, or comes from
// elsewhere; and the first load is small.
func TestPagesLoadCleanly(t *testing.T) {
	w := newTour(t)
	w.slow.Store(700)                                                                             // so that a page is painted before its script runs, as over a slow network
	names := append(slices.Sorted(maps.Keys(w.places)), "inbox", "completed", "approve", "audit") // the second time narrow
	for i, name := range names {
		p := w.p.another()
		if i >= len(w.places) {
			p.size(360, false)
		}
		command(p, network.Enable, network.EnableParams{})
		command(p, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: true})
		p.open(w.places[name])
		p.waits(`document.readyState === "complete"`)
		if moved := eval[string](p, shifts); moved != "" {
			t.Errorf("%s: the layout shifts:\n%s", name, moved)
		}
		p.mu.Lock()
		for _, trouble := range p.troubles {
			if name == "nothing here" && strings.Contains(trouble, "404") {
				continue
			}
			t.Errorf("%s: %s", name, trouble)
		}
		for _, request := range p.requests {
			if !strings.HasPrefix(request, w.origin+"/") {
				t.Errorf("%s asks for %s", name, request)
			}
		}
		if p.received == 0 || p.received > 150_000 {
			t.Errorf("%s: %d bytes are transferred", name, p.received)
		}
		t.Logf("%s: %d bytes, %d requests", name, p.received, len(p.requests))
		p.mu.Unlock()
		check(t, chromedp.Cancel(p.ctx))
	}
}

func TestReadingNeedsNoJavaScript(t *testing.T) {
	w := newTour(t)
	p := w.p
	command(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	for path, want := range map[string]string{
		w.places["inbox"]: "Open on Mondays", w.places["search"]: "Open on Mondays", w.places["pending"]: "+ <p>Open on Mondays</p>", w.places["paused"]: "failed",
		w.places["blocked"]: "Nothing may touch the vault", w.places["approve"]: "Signing in a browser needs JavaScript", w.places["emergency"]: "Every approver, the proposer and the auditors",
		w.places["new"]: "kgctl upgrade create", w.places["registry"]: "Test ryan", w.places["audit verified"]: "This stretch holds.", w.places["system"]: "ready to sign", w.places["completed"]: "kgverify --root",
		w.places["registry key"]: "Enrolling a key needs JavaScript",
	} {
		p.run(chromedp.Navigate(w.origin+path), chromedp.WaitVisible(chromedp.CSS("main")))
		text, err := chromedp.Run(p.ctx, chromedp.Text(chromedp.CSS("body")))
		check(t, err)
		if !strings.Contains(text, want) {
			t.Errorf("%s without JavaScript lacks %q: %s", path, want, text)
		}
		for _, button := range []string{"Approve with my security key", "Copy", "Sign out", "Sign and propose"} {
			if strings.Contains(text, button) {
				t.Errorf("%s without JavaScript shows %q, which would do nothing", path, button)
			}
		}
	}
	p.run(chromedp.Navigate(w.origin + "/"))
	p.fill(`[name="q"]`, "vault\r")
	p.run(chromedp.WaitVisible(chromedp.CSS(".clear")))
	p.shot("no-javascript-search")
}

// A search reaches every upgrade, not those on the page alone.
func TestSearchReachesAllUpgrades(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	now := envelope.TimeOf(w.now())
	real, _ := w.propose(t, change{rationale: "The needle", page: "1", base: upgrade.None, components: []string{"web"}})
	row := w.view(t, real.UpgradeID).Upgrade
	row.CreatedAt = now.Add(-86400)
	check(t, w.store.Update(t.Context(), func(tx workflow.Tx) error { return tx.PutUpgrade(row) }))
	for range 40 {
		w.propose(t, change{rationale: "Hay", page: "1", base: upgrade.None, components: []string{"web"}})
	}
	p.open("/")
	p.sees("More that are open")
	if eval[bool](p, `document.body.innerText.includes("The needle")`) {
		t.Fatal("the oldest of 41 is on the first page, so the test shows nothing")
	}
	p.keys("/")
	p.waits(`document.activeElement.type === "search"`)
	eval[any](p, `void (document.activeElement.value = "")`) // the driver sends the letter apart from the key
	p.keys("NEEDLE\r")
	p.waits(`location.search !== ""`)
	p.sees("The needle")
	if address := eval[string](p, `location.search`); !strings.Contains(address, "q=NEEDLE") {
		t.Fatalf("the address is %s", address)
	}
	p.open("/?state=completed")
	p.sees("No upgrade matches")
	p.open("/")
	p.run(chromedp.Click(chromedp.CSS(".more a")))
	p.sees("The needle")
}
