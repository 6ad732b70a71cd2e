package browser_test

import (
	"testing"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func TestRejectAndAskForTestsInTheBrowser(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	m, _ := w.propose(t, change{rationale: "A risky thing", page: "1", base: upgrade.None, components: []string{"web"}})
	for i, name := range []string{"ryan", "sec-eng", "divlead-1"} {
		p := w.sit(t, chromium, name)
		p.enrol("approver")
		if i == 0 {
			p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
			p.fill(`form[data-kind="test-request"] [name="tests"]`, "load, soak")
			p.fill(`form[data-kind="test-request"] [name="notes"]`, "It was slow last time")
			p.run(chromedp.Click(chromedp.CSS(`form[data-kind="test-request"] .actions button`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
			p.sees("ryan asks for tests first: load, soak")
			p.shot("upgrade-tests-asked")
		}
		p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
		p.fill(`[name="reason"]`, "It was never tried")
		p.run(chromedp.Click(chromedp.CSS(`form[data-kind="rejection"] button`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
		p.sees("“It was never tried”")
		if i == 2 {
			p.sees("Nothing. It is over.")
			p.shot("upgrade-rejected")
			p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
			p.sees("takes no more approvals")
		}
	}
	w.until(t, m.UpgradeID, workflow.StateRejected)
}

func TestWhatThePolicyDeniesNobodyApproves(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, digest := w.propose(t, change{rationale: "Open the vault", page: "1", base: upgrade.None, components: []string{"vault"}})
	p.open("/")
	p.sees("Blocked")
	p.sees("rule blocked/vault")
	p.shot("inbox-blocked")
	p.open("/upgrades/" + string(m.UpgradeID))
	p.sees("Nothing may touch the vault")
	p.shot("upgrade-blocked")
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.sees("SentinelNet rule blocked/vault denies it: Nothing may touch the vault")
	p.shot("approve-blocked")
	if !eval[bool](p, `document.querySelector('form[data-kind="approval"] button.main').matches(":disabled")`) {
		t.Fatal("the button is not disabled")
	}
	// What the page hides the server refuses.
	eval[any](p, `void (document.querySelector('form[data-kind="approval"] fieldset').disabled = false)`)
	p.fill(`[name="words"]`, words(digest, m.PatchHash))
	p.click(`form[data-kind="approval"] button.main`)
	p.sees("the policy denies this upgrade, so approvals are not taken")
	if n := w.approvals(t, m.UpgradeID); n != 0 {
		t.Fatalf("%d approvals", n)
	}
}

func TestWrongWordsAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	other, _ := w.propose(t, change{rationale: "Another", page: "2", base: upgrade.None, components: []string{"web"}})
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.fill(`[name="words"]`, words(digest, other.PatchHash))
	p.click(`form[data-kind="approval"] button.main`)
	p.sees("These are not the six words of this change")
	p.shot("approve-wrong-words")
	if n := w.approvals(t, m.UpgradeID); n != 0 {
		t.Fatalf("%d approvals", n)
	}
	if text := eval[string](p, `document.documentElement.outerHTML`); len(text) == 0 || containsWords(text, words(digest, m.PatchHash)) {
		t.Fatal("the page shows the words that it asks for")
	}
}

// An approver's key that was changed, is not verified or is synced signs nothing.
func TestKeysThatDoNotCount(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	try := func(p *person, want string) {
		t.Helper()
		p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
		p.fill(`[name="words"]`, words(digest, m.PatchHash))
		p.click(`form[data-kind="approval"] button.main`)
		p.sees(want)
		if n := w.approvals(t, m.UpgradeID); n != 0 {
			t.Fatalf("%s: %d approvals", want, n)
		}
	}
	unverified := w.sit(t, chromium, "ryan")
	unverified.enrol("approver")
	unverified.verifies(false)
	try(unverified, "The key was not used")
	unverified.verifies(true)

	synced := w.sit(t, chromium, "sec-eng")
	synced.enrol("approver")
	key := w.keys["sec-eng"]
	command(synced, webauthn.RemoveCredential, webauthn.RemoveCredentialParams{AuthenticatorID: synced.token, CredentialID: key.credential})
	command(synced, addCredential, credentialParams{synced.token, credential{CredentialID: key.credential, RPID: rpID, PrivateKey: key.pkcs8(t), SignCount: 1, Eligible: true, Backed: true}})
	try(synced, "This key is synced between devices")
	synced.shot("approve-synced")
	// The page's own check is a courtesy: the gateway refuses such a signature.
	eval[any](synced, `void (assertion = async (type, payload, key) => {
		const got = await navigator.credentials.get({ publicKey: { challenge: await crypto.subtle.digest("SHA-256", preAuth(type, payload)), rpId: key.rpId,
			userVerification: "required", allowCredentials: [{ type: "public-key", id: fromBase64(key.credentialId) }] } });
		const r = got.response;
		return { keyid: key.keyId, sig: toBase64(r.signature), webauthn: { authenticatorData: toBase64(r.authenticatorData), clientDataJSON: toBase64(r.clientDataJSON) } };
	})`)
	synced.click(`form[data-kind="approval"] button.main`)
	synced.sees("the credential is synced or may be")
	if n := w.approvals(t, m.UpgradeID); n != 0 {
		t.Fatalf("%d approvals by a synced key", n)
	}
	if n := w.events(t, m.UpgradeID, auditlog.ApprovalInvalid); n != 1 {
		t.Fatalf("%d events of an approval that did not verify", n)
	}
}

// Whatever changes while somebody reads voids what they were about to sign.
func TestChangedWhileReading(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, digest := w.propose(t, change{rationale: "A page with a test", page: "1", base: upgrade.None, components: []string{"web"}, tests: []string{"unit"}})
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.sees("Approvals have not been asked for yet")
	w.test(t, m.PatchHash, "unit", "PASSED")
	w.until(t, m.UpgradeID, workflow.StatePendingApproval)
	read := func(change func(), want string) {
		t.Helper()
		p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
		p.waits(`!document.querySelector('form[data-kind="approval"] fieldset').disabled`)
		p.fill(`[name="words"]`, words(digest, m.PatchHash))
		change()
		p.sees("this changed: " + want)
		if !eval[bool](p, `[...document.querySelectorAll("form[data-sign] fieldset")].every((f) => f.disabled)`) {
			t.Errorf("%s: something can still be signed", want)
		}
	}
	read(func() { w.test(t, m.PatchHash, "unit", "WARNED") }, "a test result")
	p.shot("approve-changed")
	read(func() { w.adopt(t, rename) }, "the registry in force")
	// The event may be lost, or come late: what counts is looked up when the key is about to be touched.
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	eval[any](p, `void (refresh = async () => {})`)
	p.fill(`[name="words"]`, words(digest, m.PatchHash))
	w.adopt(t, func(doc *keyregistry.Document) { doc.CI[0].Name = "Build" })
	p.click(`form[data-kind="approval"] button.main`)
	p.sees("this changed: the registry in force")
	if n := w.approvals(t, m.UpgradeID); n != 0 {
		t.Fatalf("%d approvals", n)
	}
	p.approve(m, digest)
	p.sees("signed")
	read2 := p.another()
	read2.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	read2.sees("You have signed already.")
	w.adopt(t, rename)
	read2.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	read2.sees("A new registry is in force since you signed")
}

// For a key outside the browser the page asks the approver's own machine. Here
// the test is the agent: it signs by itself, and the page shows it arrive.
func TestSendToMyMachine(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.sees("No agent of yours is connected")
	p.fill(`form[data-send] [name="text"]`, "Seen on my machine")
	p.click(`form[data-send] .actions button`)
	p.sees("It waits for kgctl agent on your machine")
	p.shot("approve-sent")
	agent := w.session(t, "ryan", "approver")
	own := map[string]string{"Origin": w.origin}
	request := w.signingRequest(t, agent)
	if request.UpgradeID != string(m.UpgradeID) || request.Decision != "approve" || request.Notes != "Seen on my machine" {
		t.Fatalf("%+v was asked", request)
	}
	report := "/v1/signing-requests/" + request.ID
	if status := w.call(t, agent, "POST", report, `{"state":"shown"}`, own); status != 200 {
		t.Fatalf("shown: %d", status)
	}
	p.sees("Your machine shows it. Decide there.")
	w.approveAll(t, m, digest, "ryan")
	if status := w.call(t, agent, "POST", report, `{"state":"signed"}`, own); status != 200 {
		t.Fatalf("signed: %d", status)
	}
	p.sees("Two more approvals are needed")
}
