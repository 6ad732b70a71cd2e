package commandpad

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	sessionTime  = 12 * time.Hour
	ceremonyTime = 5 * time.Minute
	maxSecret    = 100 // bytes of a cookie that is looked up
)

// The roles that these pages ask for; the API's are the same.
const (
	roleApprover  = "approver"
	roleRequestor = "requestor"
	roleOperator  = "operator"
	roleAuditor   = "auditor"
)

// user is who is signed in; the zero value is nobody.
type user struct {
	Person envelope.ID `json:"person"`
	Role   string      `json:"role"`
}

// Identify says who sent a request, by its session's cookie. A request that
// could change something and comes from another origin is nobody's.
func (p *Pad) Identify(r *http.Request) (person envelope.ID, role string, ok bool, err error) {
	if !p.sameOrigin(r) {
		return "", "", false, nil
	}
	u, err := p.user(r)
	if errors.Is(err, errSignIn) {
		return "", "", false, nil
	}
	return u.Person, u.Role, err == nil, err
}

func (p *Pad) user(r *http.Request) (user, error) {
	secret, ok := p.secret(r, "session")
	if !ok {
		return user{}, errSignIn
	}
	body, _, err := p.Accounts.Secret(r.Context(), account.Session, account.Hash(secret))
	if errors.Is(err, workflow.ErrNotFound) {
		return user{}, errSignIn
	}
	if err != nil {
		return user{}, err
	}
	var u user
	if err := json.Unmarshal(body, &u); err != nil {
		return user{}, err
	}
	// The account may have been changed or closed since.
	a, err := p.Accounts.Account(r.Context(), u.Person)
	if errors.Is(err, workflow.ErrNotFound) {
		return user{}, errSignIn
	}
	return user{a.Person, a.Role}, err
}

type userHandler func(http.ResponseWriter, *http.Request, user) error

func (p *Pad) signedIn(h userHandler) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		u, err := p.user(r)
		if err != nil {
			return err
		}
		var end int64
		err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
			end, err = reader.LogSize()
			return err
		})
		if err != nil {
			return err
		}
		return h(w, r.WithContext(context.WithValue(r.Context(), logEnd{}, end)), u)
	}
}

// logEnd is where the log ended before a page read anything: the page follows
// it from there, so that nothing falls between reading and following.
type logEnd struct{}

// cookieName binds a cookie to this host and to TLS by its prefix; a browser
// keeps no such cookie on plain http, which is for development on loopback.
func (p *Pad) cookieName(name string) string {
	if p.secure {
		return "__Host-" + name
	}
	return "kernelgate-" + name
}

// secret is what a cookie holds, where it can be one of ours.
func (p *Pad) secret(r *http.Request, name string) (string, bool) {
	cookie, err := r.Cookie(p.cookieName(name))
	if err != nil || len(cookie.Value) > maxSecret {
		return "", false
	}
	return cookie.Value, true
}

func (p *Pad) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: p.cookieName(name), Value: value, Path: "/", MaxAge: int(life.Seconds()),
		Secure: p.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

func (p *Pad) clearCookie(w http.ResponseWriter, name string) { p.setCookie(w, name, "", -time.Second) }

// open starts a session. Each sign-in has a new secret.
func (p *Pad) open(w http.ResponseWriter, r *http.Request, u user) error {
	body, err := json.Marshal(u)
	if err != nil {
		return err
	}
	text, hash := account.NewSecret()
	if err := p.Accounts.PutSecret(r.Context(), account.Session, hash, u.Person, body, p.Clock().Add(sessionTime)); err != nil {
		return err
	}
	p.setCookie(w, "session", text, sessionTime)
	return nil
}

func (p *Pad) end(w http.ResponseWriter, r *http.Request) error {
	p.clearCookie(w, "session")
	secret, ok := p.secret(r, "session")
	if !ok {
		return nil
	}
	_, err := p.Accounts.TakeSecret(r.Context(), account.Session, account.Hash(secret))
	if errors.Is(err, workflow.ErrNotFound) {
		return nil
	}
	return err
}

// sameOrigin says whether a request is a read, or comes from these very pages.
// Browsers send Origin with each request that could change something.
func (p *Pad) sameOrigin(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") == p.Origin && (site == "" || site == "same-origin")
}

// signInPage offers the identity provider beside the passkey.
type signInPage struct{ Name, Next string }

func (p *Pad) signIn(w http.ResponseWriter, r *http.Request) error {
	f := frame{Title: "Sign in"}
	f.User, _ = p.user(r)
	if p.provider != nil {
		f.Page = signInPage{p.provider.Name, localPath(r.URL.Query().Get("next"))}
	}
	p.render(w, r, http.StatusOK, "sign-in", f)
	return nil
}

func (p *Pad) enrol(w http.ResponseWriter, r *http.Request) error {
	p.render(w, r, http.StatusOK, "enrol", frame{Title: "Enrol a passkey"})
	return nil
}

// localPath is a path of these pages, or the list where text is none.
func localPath(text string) string {
	if u, err := url.Parse(text); err == nil && u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/") && !strings.HasPrefix(u.Path, "//") && !strings.Contains(text, "\\") {
		return u.RequestURI()
	}
	return "/"
}
