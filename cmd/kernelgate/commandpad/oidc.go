package commandpad

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

// OIDC is an identity provider by which people may sign in instead of by a
// passkey. Who may, and as whom, the operator's configuration says; the
// provider says only that somebody is who their claim names.
type OIDC struct {
	Name         string // on the button
	Issuer       string // as its tokens name it
	ClientID     string
	ClientSecret string
	Claim        string // whose value is looked up: email, which must be verified, or sub, say
	People       map[string]Identity
}

// Identity is a person of the registry with a role.
type Identity struct {
	Person envelope.ID
	Role   string
}

// providerTime bounds each call of the provider.
const providerTime = 10 * time.Second

// provider asks the identity provider for its endpoints when they are first
// needed, so that the gateway starts without it.
type provider struct {
	OIDC
	client *http.Client
	origin string
	now    func() time.Time

	mu    sync.Mutex
	found *oidc.Provider
}

func newProvider(c *OIDC, origin string, now func() time.Time) *provider {
	if c == nil {
		return nil
	}
	return &provider{OIDC: *c, client: &http.Client{Timeout: providerTime}, origin: origin, now: now}
}

func (o *provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found == nil {
		found, err := oidc.NewProvider(oidc.ClientContext(ctx, o.client), o.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("the identity provider: %w", err)
		}
		o.found = found
	}
	return o.found, &oauth2.Config{ClientID: o.ClientID, ClientSecret: o.ClientSecret, Endpoint: o.found.Endpoint(),
		RedirectURL: o.origin + "/oidc/callback", Scopes: []string{oidc.ScopeOpenID, "email", "profile"}}, nil
}

// exchange is what is kept while the browser is away at the provider.
type exchange struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"` // PKCE
	Next     string `json:"next"`
}

// oidcCookie is Lax: the browser comes back from another site.
const oidcCookie = "oidc"

func (p *Pad) beginOIDC(w http.ResponseWriter, r *http.Request) error {
	if p.provider == nil {
		return workflow.ErrNotFound
	}
	if !p.rate.take(p.Clock()) {
		return errBusy
	}
	_, config, err := p.provider.discover(r.Context())
	if err != nil {
		return err
	}
	x := exchange{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: localPath(r.URL.Query().Get("next"))}
	body, err := json.Marshal(x)
	if err != nil {
		return err
	}
	text, hash := account.NewSecret()
	if err := p.Accounts.PutSecret(r.Context(), account.OIDC, hash, "", body, p.Clock().Add(ceremonyTime)); err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: p.cookieName(oidcCookie), Value: text, Path: "/", MaxAge: int(ceremonyTime.Seconds()), Secure: p.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, config.AuthCodeURL(x.State, oidc.Nonce(x.Nonce), oauth2.S256ChallengeOption(x.Verifier)), http.StatusSeeOther)
	return nil
}

// finishOIDC takes the browser back. The session's cookie is Strict, so this
// page itself leads on: a redirect would still count as the other site's.
func (p *Pad) finishOIDC(w http.ResponseWriter, r *http.Request) error {
	if p.provider == nil {
		return workflow.ErrNotFound
	}
	x, err := p.takeExchange(w, r)
	if err != nil {
		return err
	}
	who, err := p.provider.identify(r.Context(), r.URL.Query().Get("code"), x)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	err = p.Accounts.ChangeAccount(r.Context(), who.Person, "", func(a *account.Account, exists bool) error {
		if !exists {
			a.Passkeys = []byte("[]")
		}
		a.Role = who.Role // the configuration's word counts
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.open(w, r, user(who)); err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "signed-in", frame{Title: "Signed in", Onward: x.Next})
	return nil
}

// takeExchange is the one that this browser began; state says that the answer is to it.
func (p *Pad) takeExchange(w http.ResponseWriter, r *http.Request) (x exchange, err error) {
	secret, ok := p.secret(r, oidcCookie)
	if !ok {
		return x, errRefused
	}
	p.clearCookie(w, oidcCookie)
	body, err := p.Accounts.TakeSecret(r.Context(), account.OIDC, account.Hash(secret))
	if errors.Is(err, workflow.ErrNotFound) {
		return x, errRefused
	}
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(body, &x); err != nil {
		return x, err
	}
	query := r.URL.Query()
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(x.State)) != 1 {
		return x, fmt.Errorf("%w: the state is another exchange's", errRefused)
	}
	if code := query.Get("error"); code != "" {
		return x, fmt.Errorf("%w: the provider says %.100q", errRefused, code)
	}
	return x, nil
}

// identify exchanges the code, verifies the ID token and looks its claim up.
func (o *provider) identify(ctx context.Context, code string, x exchange) (Identity, error) {
	found, config, err := o.discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	ctx = oidc.ClientContext(ctx, o.client)
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(x.Verifier))
	if err != nil {
		return Identity{}, errors.New("the provider did not take the code") // the error quotes what it answered
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Identity{}, errors.New("the provider sent no ID token")
	}
	id, err := found.VerifierContext(ctx, &oidc.Config{ClientID: o.ClientID, Now: o.now}).Verify(ctx, raw)
	if err != nil {
		return Identity{}, err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(x.Nonce)) != 1 {
		return Identity{}, errors.New("the ID token is of another exchange")
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return Identity{}, err
	}
	if o.Claim == "email" && claims["email_verified"] != true {
		return Identity{}, errors.New("the provider has not verified the mail address")
	}
	value, _ := claims[o.Claim].(string)
	who, ok := o.People[value]
	if !ok || value == "" {
		return Identity{}, fmt.Errorf("nobody is configured for %s %.100q", o.Claim, value)
	}
	return who, nil
}
