package browser_test

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestEmergencyInTheBrowser(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	first := w.through(t, change{rationale: "The first page", page: "<h1>1</h1>\n", base: upgrade.None, components: []string{"web"}})
	people := []*person{w.sit(t, chromium, "ryan"), w.sit(t, chromium, "sec-eng"), w.sit(t, chromium, "divlead-2")}
	for _, p := range people {
		p.enrol("approver")
	}
	ryan := people[0]
	m, digest := w.propose(t, change{rationale: "Close the hole in the login page", page: "<h1>2</h1>\n", base: upgrade.RevisionOf(first.PatchHash), components: []string{"web"}})
	divlead := people[2]
	divlead.open("/upgrades/" + string(m.UpgradeID) + "/emergency")
	divlead.sees("Only the superadmin and the security engineer")
	ryan.open("/upgrades/" + string(m.UpgradeID) + "/emergency")
	ryan.shot("emergency")
	ryan.run(chromedp.SendKeys(chromedp.CSS(`[name="reason"]`), "It is being used against us"),
		chromedp.Click(chromedp.CSS(`[name="understood"]`)),
		chromedp.Click(chromedp.CSS(`form[data-kind="emergency-trigger"] button.danger`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
	ryan.sees("Live without a quorum")
	ryan.shot("upgrade-emergency")
	ryan.open("/")
	ryan.sees("ratify:")
	ryan.shot("inbox-emergency")
	for _, p := range people {
		p.approve(m, digest)
	}
	ryan.sees("Completed")
	ryan.sees("Ratified")
}
