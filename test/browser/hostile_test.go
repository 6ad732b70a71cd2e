package browser_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// hostile is what an attacker would write into everything that they may write.
const hostile = `<script>document.title="owned"</script><img src=x onerror="document.title='owned'">"'}}{{.}} javascript:alert(1)`

// Whatever a proposer, a CI system or an approver writes is text on every page,
// and nothing that they write is hidden.
func TestWhatOthersWriteIsText(t *testing.T) {
	w := newWorld(t)
	var files bytes.Buffer
	tw := tar.NewWriter(&files)
	for _, name := range []string{"<img src=x onerror=alert(1)>.html", "invoice\u202Efdp.exe"} {
		body := "if (isAdmin) { \u2066// " + hostile + "\u2069 }\n"
		check(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}))
		_, err := tw.Write([]byte(body))
		check(t, err)
	}
	check(t, tw.Close())
	patch, _, err := w.artifacts.Put(t.Context(), &files)
	check(t, err)
	m, digest := w.proposeManifest(t, change{rationale: "A p\u0430ge" + "\u200B" + hostile, base: upgrade.None, components: []string{hostile[:70]}, tests: []string{"unit<b>"}}, patch, func(m *upgrade.Manifest) {
		m.Target.Repository, m.Target.Path = "javascript:alert(1)//"+hostile[:100], hostile
		m.Impact.Downtime = hostile
	})
	w.test(t, patch, "unit<b>", "PASSED")
	w.approveAll(t, m, digest, "sec-eng")
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	id := string(m.UpgradeID)
	for _, path := range []string{"/", "/?q=" + "%3Cscript%3E", "/upgrades/" + id, "/upgrades/" + id + "/approve", "/upgrades/" + id + "/emergency", "/rollback?of=" + id, "/registry", "/audit", "/system"} {
		p.open(path)
		if title := eval[string](p, `document.title`); title == "owned" {
			t.Errorf("%s runs what was written", path)
		}
		if n := eval[int](p, `document.querySelectorAll("main script:not([src]), main img, main b:not(.quorum b), a[href^='javascript:' i]").length`); n != 0 {
			t.Errorf("%s has %d elements of what was written", path, n)
		}
	}
	p.open("/upgrades/" + id)
	for _, want := range []string{"A p\u0430ge[U+200B]<script>", "\u201Cp\u0430ge\u201D mixes letters", "invoice[U+202E]fdp.exe", "{ [U+2066]//"} {
		p.sees(want)
	}
	p.shot("upgrade-hostile")
	if over := eval[int](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		t.Errorf("wide: %d pixels wider than the window", over)
	}
	p.size(360, true)
	if over := eval[int](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		t.Errorf("%d pixels wider than the window", over)
	}
	p.shot("upgrade-hostile-narrow-dark")
	p.run(chromedp.WaitVisible(chromedp.CSS("main")))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, trouble := range p.troubles {
		t.Errorf("the browser complains: %s", trouble)
	}
}

// Pages are shown in no frame, kept by no cache, and their cookies are no script's.
func TestHeadersOfPages(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/sign-in", "/enrol", "/", "/no-such-page", "/oidc/begin"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+path, nil)
		check(t, err)
		resp, err := http.DefaultTransport.RoundTrip(req)
		check(t, err)
		check(t, resp.Body.Close())
		csp := resp.Header.Get("Content-Security-Policy")
		for _, rule := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "require-trusted-types-for 'script'", "script-src 'self';"} {
			if !strings.Contains(csp, rule) {
				t.Errorf("%s: the policy lacks %s: %s", path, rule, csp)
			}
		}
		if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s answers %v", path, resp.Header)
		}
	}
}

// A session's secret is new with each sign-in: what an attacker has put into a
// browser before opens nothing.
func TestASessionIsNotFixed(t *testing.T) {
	w := newWorld(t)
	planted := "kernelgate-session=" + strings.Repeat("A", 43)
	p := w.sit(t, browser(t), "ryan")
	p.open("/sign-in")
	eval[any](p, "void (document.cookie = "+`"`+planted+`; path=/")`)
	p.enrol("approver")
	p.sees("Needs you")
	if status := w.call(t, planted, "GET", "/", "", nil); status != http.StatusSeeOther {
		t.Errorf("the planted cookie answers %d", status)
	}
}
