package browser_test

import (
	"net/url"
	"strings"
	"testing"
)

// A link to the sign-in page cannot send somebody who signs in to another host.
func TestSignInLeadsToThisGatewayOnly(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	for next, want := range map[string]string{
		w.origin + "//evil.invalid/": "/evil.invalid/", // of this gateway, which has no such page
		"/..//evil.invalid/":         "/evil.invalid/",
		"/%2e%2e//evil.invalid/":     "/evil.invalid/",
		"//evil.invalid/":            "/",
		"https://evil.invalid/":      "/",
		`\\evil.invalid\`:            "/",
		"javascript:alert(1)":        "/",
		"blob:" + w.origin + "/page": "/",
		"/audit?from=0":              "/audit?from=0",
	} {
		p.signOut()
		p.open("/sign-in?next=" + url.QueryEscape(next))
		p.click(`[data-do="sign-in"]`)
		p.waits(`location.pathname !== "/sign-in"`)
		got := eval[string](p, "location.href")
		// The server's mux cleans a path that begins with //, and stays on this host.
		path, own := strings.CutPrefix(got, w.origin)
		if !own || path != want && path != "/"+want {
			t.Errorf("next=%s leads to %s", next, got)
		}
		p.open("/")
	}
}
