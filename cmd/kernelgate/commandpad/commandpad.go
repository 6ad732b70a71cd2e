// Package commandpad is the web face of the gateway: server-rendered pages on
// which people read, understand and sign. Reading needs no JavaScript. Every
// action is a call of the public HTTP API with a signed record; nothing here
// has authority of its own.
package commandpad

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/changes"
)

//go:embed assets templates
var files embed.FS

// Config is what the pages stand on. All but OIDC is required.
type Config struct {
	Engine    *workflow.Engine
	Store     workflow.Store
	Artifacts workflow.Artifacts
	Accounts  account.Store
	Targets   []envelope.ID // that are configured
	Checks    []Check       // what the system page tries
	Origin    string        // as browsers see it: https://gate.example.org, or http://localhost:8420
	OIDC      *OIDC         // nil: passkeys only
	Clock     func() time.Time
	Logger    *slog.Logger
}

// Check is one thing that must work.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// Pad serves the pages.
type Pad struct {
	Config
	passkeys *webauthn.WebAuthn
	pages    map[string]*template.Template
	mux      *http.ServeMux
	assets   assets
	compared *comparisons
	views    *views
	provider *provider // nil: passkeys only
	rate     *rate
	tried    system
	secure   bool // the origin is https
}

// New makes the pages. Its error says what is wrong with the origin.
func New(c Config) (*Pad, error) {
	origin, err := url.Parse(c.Origin)
	if err != nil || origin.Host == "" || origin.Path != "" || c.Origin != origin.Scheme+"://"+origin.Host {
		return nil, fmt.Errorf("commandpad: the origin %.100q is not a scheme and a host, such as https://gate.example.org", c.Origin)
	}
	p := &Pad{Config: c, secure: origin.Scheme == "https", mux: http.NewServeMux()}
	p.provider = newProvider(c.OIDC, c.Origin, c.Clock)
	p.views = &views{known: map[envelope.UUID]knownView{}}
	p.rate = newRate(c.Clock())
	p.compared = &comparisons{artifacts: c.Artifacts, done: map[pair]*changes.Set{}}
	p.passkeys, err = webauthn.New(&webauthn.Config{RPID: origin.Hostname(), RPDisplayName: "kernelgate", RPOrigins: []string{c.Origin}})
	if err != nil {
		return nil, fmt.Errorf("commandpad: %w", err)
	}
	if p.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if p.pages, err = parsePages(p.assets); err != nil {
		return nil, err
	}
	p.routes()
	return p, nil
}

func (p *Pad) routes() {
	p.mux.Handle("GET /assets/{name}", p.assets)
	p.mux.HandleFunc("GET /sign-in", p.page(p.signIn))
	p.mux.HandleFunc("GET /oidc/begin", p.page(p.beginOIDC))
	p.mux.HandleFunc("GET /oidc/callback", p.page(p.finishOIDC))
	p.mux.HandleFunc("GET /enrol", p.page(p.enrol))
	p.mux.HandleFunc("POST /session/{step}", p.own(p.session))
	p.mux.HandleFunc("POST /enrolment/{step}", p.own(p.enrolment))
	p.mux.HandleFunc("GET /{$}", p.page(p.signedIn(p.inbox)))
	p.mux.HandleFunc("GET /upgrades/{id}", p.page(p.signedIn(p.upgrade)))
	p.mux.HandleFunc("GET /upgrades/{id}/approve", p.page(p.signedIn(p.approve)))
	p.mux.HandleFunc("GET /upgrades/{id}/emergency", p.page(p.signedIn(p.emergency)))
	p.mux.HandleFunc("GET /new", p.page(p.signedIn(p.propose)))
	p.mux.HandleFunc("GET /rollback", p.page(p.signedIn(p.rollback)))
	p.mux.HandleFunc("GET /registry", p.page(p.signedIn(p.registryPage)))
	p.mux.HandleFunc("GET /registry/key", p.page(p.signedIn(p.enrolKey)))
	p.mux.HandleFunc("GET /registry/sign", p.page(p.signedIn(p.signRegistry)))
	p.mux.HandleFunc("POST "+reviewPath, p.own(p.reviewRegistry))
	p.mux.HandleFunc("GET /audit", p.page(p.signedIn(p.audit)))
	p.mux.HandleFunc("GET /system", p.page(p.signedIn(p.systemPage)))
	p.mux.HandleFunc("GET /", p.page(func(http.ResponseWriter, *http.Request) error {
		return workflow.ErrNotFound
	}))
}

// ServeHTTP serves the pages and what they load.
func (p *Pad) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Permissions-Policy", "publickey-credentials-get=(self), publickey-credentials-create=(self)")
	p.mux.ServeHTTP(w, r)
}

// policy lets the page load its own style and script, talk to its own origin,
// and nothing else; strings become script or HTML only by the one named policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types kernelgate"

// page turns a handler's error into a page that says what to do.
func (p *Pad) page(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := h(w, r); err != nil {
			p.fail(w, r, err)
		}
	}
}

var (
	errSignIn = errors.New("sign in first")
	errBusy   = errors.New("too many sign in")
)

type problem struct {
	Status        int
	Title, Advice string
}

func (p *Pad) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errSignIn) {
		http.Redirect(w, r, "/sign-in?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return
	}
	what := problem{http.StatusInternalServerError, "This page could not be made", "The gateway's log says why. Try again; if it stays so, tell an operator the time."}
	if errors.Is(err, errRefused) {
		what = problem{http.StatusForbidden, "You are not signed in", "The sign-in was refused, or it took too long. Start again; if it stays so, ask an operator: the gateway's log says why."}
		p.Logger.WarnContext(r.Context(), "a sign-in was refused", "path", r.URL.Path, "err", err)
	} else if errors.Is(err, errBusy) {
		w.Header().Set("Retry-After", "1")
		what = problem{http.StatusTooManyRequests, "Too many sign in at this moment", "Try again in a few seconds."}
	} else if errors.Is(err, workflow.ErrNotFound) {
		what = problem{http.StatusNotFound, "There is nothing here", "The address may be mistyped, or the upgrade belongs to another gateway."}
	} else {
		p.Logger.ErrorContext(r.Context(), "a page failed", "path", r.URL.Path, "err", err)
	}
	user, _ := p.user(r)
	p.render(w, r, what.Status, "problem", frame{Title: what.Title, User: user, Page: what})
}

// frame is what every page's template is given.
type frame struct {
	Title string
	User  user
	Place string // which entry of the navigation is current
	Now   envelope.Time
	Page  any
	// Onward is where the page leads by itself; "" for none.
	Onward string
	// From is the seq of the first event that the page may not show.
	From int64
	// Emergencies are live without a quorum. Every page shows them.
	Emergencies []workflow.Upgrade
}

// emergencies are those that nobody has ratified yet.
func (p *Pad) emergencies(r *http.Request) (list []workflow.Upgrade, err error) {
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		list, _, err = reader.Upgrades(workflow.Page{States: []workflow.State{workflow.StateEmergencyApplied}, Limit: 5})
		return err
	})
	return list, err
}

func (p *Pad) now() envelope.Time { return envelope.TimeOf(p.Clock()) }

func subFiles(dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return sub
}
