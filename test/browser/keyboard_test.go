package browser_test

import (
	"strconv"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// tabTo presses Tab until the focus is on what a selector names.
func (p *person) tabTo(selector string) {
	p.t.Helper()
	for range 80 {
		p.keys(kb.Tab)
		if eval[bool](p, `document.activeElement.matches(`+strconv.Quote(selector)+`)`) {
			if !eval[bool](p, `document.activeElement.matches(":focus-visible") && getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
				p.t.Fatalf("the focus on %s cannot be seen", selector)
			}
			return
		}
	}
	p.t.Fatalf("the keyboard does not reach %s", selector)
}

// All of it, from signing in to the signature, without a mouse.
func TestKeyboardOnly(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	first, _ := w.propose(t, change{rationale: "The first in the list", page: "1", base: upgrade.None, components: []string{"web"}})
	_ = first
	m, digest := w.propose(t, change{rationale: "The second in the list", page: "2", base: upgrade.None, components: []string{"web"}})
	p.open("/")
	link := w.invite(t, "ryan", "approver")
	p.openLink(link)
	p.tabTo(`[data-do="enrol"]`)
	p.keys(kb.Enter)
	p.sees("Needs you")
	p.keys(kb.Tab)
	if !eval[bool](p, `document.activeElement.matches(".skip")`) {
		t.Error("the first Tab does not offer to skip to the content")
	}
	p.keys("?")
	p.waits(`document.querySelector("#keys").open`)
	p.keys(kb.Escape)
	p.waits(`!document.querySelector("#keys").open`)
	p.keys("/")
	p.waits(`document.activeElement.type === "search"`)
	p.tabTo("[data-row]")
	for range 2 {
		p.keys("k")
	}
	if at := eval[int](p, `[...document.querySelectorAll("[data-row]")].indexOf(document.activeElement)`); at != 0 {
		t.Fatalf("k stops at row %d", at)
	}
	for range 3 {
		p.keys("j")
	}
	if at := eval[int](p, `[...document.querySelectorAll("[data-row]")].indexOf(document.activeElement)`); at != 1 {
		t.Fatalf("j stops at row %d", at)
	}
	p.open("/upgrades/" + string(m.UpgradeID))
	p.tabTo(".button.main")
	p.keys(kb.Enter)
	p.sees("The six words")
	p.tabTo(`[name="words"]`)
	p.keys(words(digest, m.PatchHash))
	p.tabTo(`[name="preapprove"]`)
	p.keys(" ")
	p.tabTo(`form[data-kind="approval"] button.main`)
	p.keys(kb.Enter)
	p.sees("agrees to take it back if the canary fails")
}

// A second window shows what happens in the first, by itself.
func TestASecondWindowFollows(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	watch := p.another()
	watch.open("/upgrades/" + string(m.UpgradeID))
	watch.sees("Three more approvals are needed")
	eval[any](watch, `void (window.loadedOnce = true, document.querySelector("#record details:last-of-type").open = true, document.querySelector("#record summary").focus())`)
	list := p.another()
	list.open("/")
	list.sees("0/3")
	p.approve(m, digest)
	watch.sees("Two more approvals are needed")
	list.sees("1/3")
	if !eval[bool](watch, `window.loadedOnce === true && document.querySelector("#record details:last-of-type").open && document.activeElement.matches("#record summary")`) {
		t.Error("the page was loaded anew, or what was open or in focus is lost")
	}
	w.approveAll(t, m, digest, "sec-eng", "divlead-1")
	watch.sees("Completed")
	list.sees("Done")
	if n := len(watch.troubles); n > 0 {
		t.Errorf("the browser complains: %v", watch.troubles)
	}
}
