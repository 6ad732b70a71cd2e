package browser_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestProposeAndTakeBackInTheBrowser(t *testing.T) {
	w := newWorld(t)
	first := w.through(t, change{rationale: "The first page", page: "<h1>1</h1>\n", base: upgrade.None, components: []string{"web"}})
	ryan := w.sit(t, browser(t), "ryan")
	ryan.enrol("approver")
	file := filepath.Join(t.TempDir(), "site.tar.gz")
	check(t, os.WriteFile(file, archive(t, "<h1>1</h1>\n<p>open on Mondays</p>\n"), 0o600))
	ryan.open("/new")
	ryan.shot("new")
	ryan.run(chromedp.SetUploadFiles(chromedp.CSS(`[name="artifact"]`), []string{file}),
		chromedp.SendKeys(chromedp.CSS(`[name="rationale"]`), "The shop is open on Mondays"),
		chromedp.SendKeys(chromedp.CSS(`[name="repository"]`), "site"),
		chromedp.SendKeys(chromedp.CSS(`[name="components"]`), "web, vault"))
	ryan.sees("blocked/vault: Nothing may touch the vault") // before anything is signed
	ryan.shot("new-denied")
	eval[any](ryan, `void (document.querySelector('[name="components"]').value = "")`)
	ryan.fill(`[name="components"]`, "web, shop")
	ryan.sees("The policy would allow it.")
	ryan.run(chromedp.Click(chromedp.CSS(`form[data-propose] button.main`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
	ryan.sees("open on Mondays</p>")
	ryan.shot("upgrade-draft")
	ryan.run(chromedp.Click(chromedp.CSS(`[data-do="request-approvals"]`)))
	ryan.sees("Three more approvals are needed")

	second := ryan.upgrade()
	w.approveAll(t, w.view(t, second).Manifest, w.view(t, second).Upgrade.ManifestDigest, "ryan", "sec-eng", "divlead-1")
	w.until(t, second, workflow.StateCompleted)

	// Back in two clicks: from what is live to the form, and the signature.
	ryan.open("/upgrades/" + string(second))
	ryan.click(`a[href^="/rollback"]`)
	ryan.fill(`[name="reason"]`, "Mondays were a mistake")
	ryan.run(chromedp.Click(chromedp.CSS(`form[data-propose] button.main`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
	ryan.sees("Mondays were a mistake")
	ryan.shot("upgrade-rollback")
	back := ryan.upgrade()
	ryan.run(chromedp.Click(chromedp.CSS(`[data-do="request-approvals"]`)))
	ryan.sees("Three more approvals are needed")
	w.approveAll(t, w.view(t, back).Manifest, w.view(t, back).Upgrade.ManifestDigest, "ryan", "sec-eng", "divlead-1")
	w.until(t, second, workflow.StateRolledBack)
	for of, want := range map[envelope.UUID]string{first.UpgradeID: "Nothing was live before it", second: "is not what is live"} {
		ryan.open("/rollback?of=" + string(of))
		ryan.sees(want)
	}
}

// upgrade is the one whose page is open.
func (p *person) upgrade() envelope.UUID {
	p.t.Helper()
	return envelope.UUID(eval[string](p, `location.pathname.split("/")[2]`))
}
