package browser_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestSignOutAndInAndSessionsEnd(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	p.open("/")
	p.sees("Sign in")
	p.shot("sign-in")
	p.enrol("approver")
	p.signOut()
	p.open("/upgrades/" + string(m.UpgradeID))
	p.sees("With the passkey that you enrolled")
	p.click(`[data-do="sign-in"]`)
	p.sees("Three more approvals are needed") // where it was about to go

	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.fill(`[name="words"]`, words(digest, m.PatchHash))
	w.later.Store(13 * 3600)
	p.click(`form[data-kind="approval"] button.main`)
	p.sees("Your session is over.")
	p.shot("session-over")
	if seats := w.approvals(t, m.UpgradeID); seats != 0 {
		t.Fatalf("%d approvals from a session that is over", seats)
	}
	p.open("/")
	p.sees("With the passkey that you enrolled")

	// Closed between the proof and the session, it stays closed; so does a link.
	link := w.invite(t, "ryan", "approver")
	w.closing.Store(true)
	p.click(`[data-do="sign-in"]`)
	p.sees("That did not work")
	p.openLink(link)
	p.click(`[data-do="enrol"]`)
	p.sees("That did not work")
	if list, err := w.store.Accounts(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("accounts %v, %v", list, err)
	}
}

func TestAnEnrolmentLinkWorksOnce(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	p := w.sit(t, chromium, "ryan")
	link := w.invite(t, "ryan", "approver")
	p.run(chromedp.Navigate(link), chromedp.Click(chromedp.CSS(`[data-do="enrol"]`)), chromedp.WaitVisible(chromedp.CSS(".who")))
	thief := w.sit(t, chromium, "sec-eng")
	thief.run(chromedp.Navigate(link))
	thief.shot("enrol")
	thief.click(`[data-do="enrol"]`)
	thief.sees("That did not work")
}

func TestAPasskeyNeedsUserVerification(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	p.signOut()
	p.verifies(false)
	p.open("/sign-in")
	p.click(`[data-do="sign-in"]`)
	p.sees("The key was not used")
	p.open("/")
	p.sees("With the passkey that you enrolled")
}

// What another site has a browser send is nobody's.
func TestForeignOriginsAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, _ := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	list := command(p, network.GetCookies, network.GetCookiesParams{}).Cookies
	var cookies []string
	for _, c := range list {
		if c.Name == "kernelgate-session" && (c.SameSite != network.CookieSameSiteStrict || !c.HTTPOnly) {
			t.Errorf("the session's cookie is %s, HttpOnly %t", c.SameSite, c.HTTPOnly)
		}
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	cookie := strings.Join(cookies, "; ")
	own := map[string]string{"Origin": w.origin, "Sec-Fetch-Site": "same-origin"}
	if status := w.call(t, cookie, "POST", "/registry/review", "{}", own); status != http.StatusBadRequest {
		t.Fatalf("the page's own call answers %d", status)
	}
	for name, headers := range map[string]map[string]string{
		"a foreign origin":              {"Origin": "https://evil.example"},
		"a foreign site":                {"Origin": w.origin, "Sec-Fetch-Site": "cross-site"},
		"another port":                  {"Origin": "http://localhost:1", "Sec-Fetch-Site": "same-site"},
		"no origin":                     {},
		"an origin that begins as ours": {"Origin": w.origin + ".evil.example"},
		"a sandboxed page":              {"Origin": "null"},
	} {
		for path, want := range map[string]int{"/session/end": 403, "/registry/review": 403, "/v1/records": 401, "/v1/policy/preview": 401, "/v1/upgrades/" + string(m.UpgradeID) + "/approval-request": 401} {
			if status := w.call(t, cookie, "POST", path, "{}", headers); status != want {
				t.Errorf("%s: POST %s answers %d, not %d", name, path, status, want)
			}
		}
	}
	p.open("/")
	p.sees("Needs you") // still signed in
}
