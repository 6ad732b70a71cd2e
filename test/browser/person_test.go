package browser_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	browserprotocol "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// patience is how long a page may take to show what is waited for.
const patience = 30 * time.Second

// browser is one Chromium for a test; each person has an own profile in it.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		path, err = exec.LookPath("google-chrome")
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is missing; the Makefile's deps install it")
		}
		t.Skip("chromium is missing")
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoFirstRun, chromedp.NoSandbox}
	for _, name := range []string{"headless", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync"} {
		options = append(options, chromedp.Flag(name, true))
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	check(t, chromedp.Do(ctx))
	t.Cleanup(func() {
		cancel()
		stop()
	})
	return ctx
}

// person is somebody in front of an own browser profile.
type person struct {
	t     *testing.T
	w     *world
	ctx   context.Context
	name  string
	token webauthn.AuthenticatorID // a USB security key, with the person's signing credential

	mu       sync.Mutex
	troubles []string // what the browser complained about
	requests []string // addresses that were asked for
	received int      // bytes that came over the network
}

// hear takes note of what the browser says beside the page.
func (p *person) hear(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := ev.(type) {
	case *log.EventEntryAdded:
		p.troubles = append(p.troubles, string(e.Entry.Level)+": "+e.Entry.Text+" "+e.Entry.URL)
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, "exception: "+e.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *network.EventLoadingFinished:
		p.received += int(e.EncodedDataLength)
	}
}

// another opens a second window of the same person, with the same session.
func (p *person) another() *person {
	q := &person{t: p.t, w: p.w, name: p.name, token: p.token}
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithListener(q.hear))
	p.t.Cleanup(cancel)
	check(p.t, chromedp.Do(ctx))
	q.ctx = ctx
	q.size(1280, false)
	return q
}

// sit gives a person a profile, a passkey device and a security key.
func (w *world) sit(t *testing.T, chromium context.Context, name string) *person {
	p := &person{t: t, w: w, name: name}
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	t.Cleanup(cancel)
	check(t, chromedp.Do(ctx))
	p.ctx = ctx
	command(p, log.Enable, cdp.Empty{})
	command(p, webauthn.Enable, webauthn.EnableParams{})
	p.token = p.authenticator(webauthn.AuthenticatorTransportUsb)
	if key, ok := w.keys[name]; ok {
		command(p, addCredential, credentialParams{p.token, credential{CredentialID: key.credential, RPID: rpID, PrivateKey: key.pkcs8(t), SignCount: 1}})
	}
	p.size(1280, false)
	return p
}

// addCredential is the protocol's command with what every Chromium knows:
// webauthn.AddCredential always sends members that some refuse.
var addCredential = cdp.Command[credentialParams, cdp.Empty]{Method: webauthn.CommandAddCredential}

type credentialParams struct {
	AuthenticatorID webauthn.AuthenticatorID `json:"authenticatorId"`
	Credential      credential               `json:"credential"`
}

type credential struct {
	CredentialID []byte `json:"credentialId"`
	RPID         string `json:"rpId"`
	PrivateKey   []byte `json:"privateKey"` // PKCS#8
	SignCount    int    `json:"signCount"`
	Resident     bool   `json:"isResidentCredential"`
	Eligible     bool   `json:"backupEligibility,omitzero"`
	Backed       bool   `json:"backupState,omitzero"`
}

// command sends one command of the browser's protocol.
func command[P, R any](p *person, c cdp.Command[P, R], params P) R {
	p.t.Helper()
	result, err := chromedp.Run(p.ctx, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, c, params) })
	check(p.t, err)
	return result
}

func (p *person) authenticator(transport webauthn.AuthenticatorTransport) webauthn.AuthenticatorID {
	return command(p, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: transport, HasResidentKey: true, HasUserVerification: true,
		IsUserVerified: true, AutomaticPresenceSimulation: true,
	}}).AuthenticatorID
}

// run does what the person does, within patience.
func (p *person) run(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.shot("stuck-" + p.name)
		text, _ := chromedp.Run(p.ctx, chromedp.Text(chromedp.CSS("body")))
		p.t.Fatalf("%s: %v; the page says: %s", p.name, err, text)
	}
}

// enrol opens an operator's link and enrols; the person is then signed in.
func (p *person) enrol(role string) {
	p.t.Helper()
	link, err := commandpad.Invite(p.ctx, p.w.store, p.w.origin, envelope.ID(p.name), role, time.Now().Add(time.Hour))
	check(p.t, err)
	p.run(chromedp.Navigate(link), chromedp.Click(chromedp.CSS(`[data-do="enrol"]`)), chromedp.WaitVisible(chromedp.CSS(".who")))
}

func (p *person) open(path string) {
	p.t.Helper()
	p.run(chromedp.Navigate(p.w.origin+path), chromedp.WaitVisible(chromedp.CSS("main")))
}

// sees waits until the page shows a text.
func (p *person) sees(text string) {
	p.t.Helper()
	p.waits(`document.querySelector("main")?.innerText.includes(` + strconv.Quote(text) + `)`)
}

// signOut ends the session, and waits for the page to which that leads.
func (p *person) signOut() {
	p.t.Helper()
	p.click(`[data-do="sign-out"]`)
	p.sees("With the passkey that you enrolled")
}

func (p *person) size(width int64, dark bool) {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	command(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 500})
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// shot writes a picture of the whole page to out/, to be looked at.
func (p *person) shot(name string) {
	p.t.Helper()
	_, _ = chromedp.Run(p.ctx, chromedp.Evaluate[bool]("scrollTo(0, 0), true")) // what stays at the top is drawn there
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil { // the page was about to be replaced
		time.Sleep(200 * time.Millisecond)
		png, err = chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	}
	check(p.t, err)
	check(p.t, os.MkdirAll("out", 0o755))
	check(p.t, os.WriteFile(filepath.Join("out", name+".png"), png, 0o644))
}

func (p *person) click(selector string) {
	p.t.Helper()
	p.run(chromedp.Click(chromedp.CSS(selector)))
}

func (p *person) fill(selector, text string) {
	p.t.Helper()
	p.run(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// keys presses keys, wherever the focus is.
func (p *person) keys(keys string) {
	p.t.Helper()
	p.run(chromedp.KeyEvent(keys))
}

// waits waits until an expression is true in the page, or in the one after it.
func (p *person) waits(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for {
		yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if yes && err == nil {
			return
		}
		select {
		case <-ctx.Done():
			p.shot("stuck-" + p.name)
			text, _ := chromedp.Run(p.ctx, chromedp.Text(chromedp.CSS("body")))
			p.t.Fatalf("%s: %s is not so (%v); the page says: %s", p.name, expression, err, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// eval is the value of an expression in the page; a promise is awaited.
func eval[T any](p *person, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.name, expression, err)
	}
	return v
}

// openLink opens an operator's link.
func (p *person) openLink(link string) {
	p.t.Helper()
	p.run(chromedp.Navigate(link), chromedp.WaitVisible(chromedp.CSS("main")))
}

// download clicks on a link and is the content of the file that it gives.
func (p *person) download(selector string) string {
	p.t.Helper()
	dir := p.t.TempDir()
	c := chromedp.FromContext(p.ctx)
	_, err := cdp.Call(p.ctx, c.Browser, browserprotocol.SetDownloadBehavior, browserprotocol.SetDownloadBehaviorParams{
		Behavior: browserprotocol.SetDownloadBehaviorBehaviorAllow, BrowserContextID: c.BrowserContextID, DownloadPath: dir})
	check(p.t, err)
	p.click(selector)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		check(p.t, err)
		if len(files) == 1 {
			data, err := os.ReadFile(files[0])
			check(p.t, err)
			return string(data)
		}
	}
	p.t.Fatalf("%s gives no file", selector)
	return ""
}
