package browser_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// patience is how long a page may take to show what is waited for.
const patience = 15 * time.Second

// browser is one Chromium for a test; each person has an own profile in it.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
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
}

// sit gives a person a profile, a passkey device and a security key.
func (w *world) sit(t *testing.T, chromium context.Context, name string) *person {
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	check(t, chromedp.Do(ctx))
	p := &person{t: t, w: w, ctx: ctx, name: name}
	command(p, webauthn.Enable, webauthn.EnableParams{})
	p.token = p.authenticator(webauthn.AuthenticatorTransportUsb)
	if key, ok := w.keys[name]; ok {
		command(p, addCredential, credentialParams{p.token, credential{key.credential, rpID, key.pkcs8(t), 1, false}})
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
	p.run(chromedp.Poll[chromedp.Void](`document.querySelector("main")?.innerText.includes(` + strconv.Quote(text) + `)`))
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
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	check(p.t, err)
	check(p.t, os.MkdirAll("out", 0o755))
	check(p.t, os.WriteFile(filepath.Join("out", name+".png"), png, 0o644))
}
