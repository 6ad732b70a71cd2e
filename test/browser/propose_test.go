package browser_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestProposeAndTakeBackInTheBrowser(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	m, digest := w.propose(t, change{rationale: "The first page", page: "<h1>1</h1>\n", base: upgrade.None, components: []string{"web"}})
	people := []*person{w.sit(t, chromium, "ryan"), w.sit(t, chromium, "sec-eng"), w.sit(t, chromium, "divlead-2")}
	for _, p := range people {
		p.enrol("approver")
		p.approve(m, digest)
	}
	ryan := people[0]
	ryan.sees("Completed")
	file := filepath.Join(t.TempDir(), "site.tar.gz")
	check(t, os.WriteFile(file, archive(t, "<h1>1</h1>\n<p>open on Mondays</p>\n"), 0o600))
	ryan.open("/new")
	ryan.shot("new")
	ryan.run(chromedp.SetUploadFiles(chromedp.CSS(`[name="artifact"]`), []string{file}),
		chromedp.SendKeys(chromedp.CSS(`[name="rationale"]`), "The shop is open on Mondays"),
		chromedp.SendKeys(chromedp.CSS(`[name="repository"]`), "site"),
		chromedp.SendKeys(chromedp.CSS(`[name="components"]`), "web, shop"),
		chromedp.Click(chromedp.CSS(`form[data-propose] button.main`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
	ryan.sees("open on Mondays</p>")
	ryan.shot("upgrade-draft")
	ryan.run(chromedp.Click(chromedp.CSS(`[data-do="request-approvals"]`)))
	ryan.sees("Three more approvals are needed")
}
