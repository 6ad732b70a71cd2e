package commandpad

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

// maxCeremony bounds what a browser sends in one step of a ceremony.
const maxCeremony = 64 << 10

// errRefused is shown as it is; what was wrong in detail helps only attackers.
var errRefused = errors.New("that did not work")

// own answers calls of these very pages in JSON.
func (p *Pad) own(h func(http.ResponseWriter, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !p.sameOrigin(r) {
			http.Error(w, "This call is for CommandPad's own pages.", http.StatusForbidden)
			return
		}
		if byStrangers(r.URL.Path) && !p.rate.take(p.Clock()) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many sign in at this moment. Try again in a few seconds.", http.StatusTooManyRequests)
			return
		}
		limit := int64(maxCeremony)
		if r.URL.Path == reviewPath {
			limit = maxProposed
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		answer, err := h(w, r)
		if errors.Is(err, errRefused) || errors.Is(err, errSignIn) || errors.Is(err, workflow.ErrNotFound) {
			p.Logger.WarnContext(r.Context(), "a call was refused", "path", r.URL.Path, "err", err)
			http.Error(w, "That did not work. Start again; if it stays so, ask an operator for a new link.", http.StatusUnauthorized)
			return
		}
		if said := unclear(""); errors.As(err, &said) {
			http.Error(w, string(said), http.StatusBadRequest)
			return
		}
		if err != nil {
			p.Logger.ErrorContext(r.Context(), "a call failed", "path", r.URL.Path, "err", err)
			http.Error(w, "The gateway could not answer; its log says why.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the reader may have gone
	}
}

// holder is an account as the WebAuthn library wants it.
type holder struct {
	account.Account
	credentials []webauthn.Credential
}

func (h *holder) WebAuthnID() []byte                         { return []byte(h.Person) }
func (h *holder) WebAuthnName() string                       { return string(h.Person) }
func (h *holder) WebAuthnDisplayName() string                { return string(h.Person) }
func (h *holder) WebAuthnCredentials() []webauthn.Credential { return h.credentials }

func holderOf(a account.Account) (*holder, error) {
	h := &holder{Account: a}
	if len(a.Passkeys) == 0 {
		return h, nil
	}
	return h, json.Unmarshal(a.Passkeys, &h.credentials)
}

// change puts what f makes of an account's credentials into it.
func change(a *account.Account, f func(list []webauthn.Credential) []webauthn.Credential) error {
	h, err := holderOf(*a)
	if err == nil {
		a.Passkeys, err = json.Marshal(f(h.credentials))
	}
	return err
}

// ceremony is what is kept between the two steps of a WebAuthn exchange.
type ceremony struct {
	Person     envelope.ID          `json:"person,omitzero"` // none while somebody signs in
	Role       string               `json:"role"`
	Invitation string               `json:"invitation"` // hash of the link's secret
	Session    webauthn.SessionData `json:"session"`
}

func (p *Pad) begin(w http.ResponseWriter, r *http.Request, c ceremony) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	text, hash := account.NewSecret()
	p.setCookie(w, "ceremony", text, ceremonyTime)
	return p.Accounts.PutSecret(r.Context(), account.Ceremony, hash, c.Person, body, p.Clock().Add(ceremonyTime))
}

// finish is the exchange under way, which is over with it.
func (p *Pad) finish(w http.ResponseWriter, r *http.Request) (c ceremony, err error) {
	secret, ok := p.secret(r, "ceremony")
	if !ok {
		return c, errRefused
	}
	p.clearCookie(w, "ceremony")
	body, err := p.Accounts.TakeSecret(r.Context(), account.Ceremony, account.Hash(secret))
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// session signs in, in two steps, and out.
func (p *Pad) session(w http.ResponseWriter, r *http.Request) (any, error) {
	switch r.PathValue("step") {
	case "begin":
		options, data, err := p.passkeys.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
		if err != nil {
			return nil, err
		}
		return options.Response, p.begin(w, r, ceremony{Session: *data})
	case "finish":
		return struct{}{}, p.finishSignIn(w, r)
	case "end":
		return struct{}{}, p.end(w, r)
	}
	return nil, workflow.ErrNotFound
}

func (p *Pad) finishSignIn(w http.ResponseWriter, r *http.Request) error {
	c, err := p.finish(w, r)
	if err != nil {
		return err
	}
	response, err := protocol.ParseCredentialRequestResponseBody(r.Body)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	var who *holder
	find := func(_, handle []byte) (webauthn.User, error) {
		a, err := p.Accounts.Account(r.Context(), envelope.ID(handle))
		if err == nil {
			who, err = holderOf(a)
		}
		return who, err
	}
	_, credential, err := p.passkeys.ValidatePasskeyLogin(find, c.Session, response)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	err = p.Accounts.ChangeAccount(r.Context(), who.Person, "", func(a *account.Account, exists bool) error {
		if !exists {
			return workflow.ErrNotFound // closed since
		}
		return change(a, func(list []webauthn.Credential) []webauthn.Credential {
			for i := range list {
				if bytes.Equal(list[i].ID, credential.ID) {
					list[i] = *credential // its counter went on
				}
			}
			return list
		})
	})
	if err != nil {
		return err
	}
	return p.open(w, r, user{who.Person, who.Role})
}

// enrolment takes a passkey on an operator's one-time link. The link is used up
// when a passkey was enrolled, not when the page was opened.
func (p *Pad) enrolment(w http.ResponseWriter, r *http.Request) (any, error) {
	switch r.PathValue("step") {
	case "begin":
		return p.beginEnrolment(w, r)
	case "finish":
		return struct{}{}, p.finishEnrolment(w, r)
	}
	return nil, workflow.ErrNotFound
}

func (p *Pad) beginEnrolment(w http.ResponseWriter, r *http.Request) (any, error) {
	secret, err := io.ReadAll(io.LimitReader(r.Body, maxSecret))
	if err != nil {
		return nil, errors.Join(errRefused, err)
	}
	invitation := account.Hash(string(secret))
	body, _, err := p.Accounts.Secret(r.Context(), account.Invitation, invitation)
	if err != nil {
		return nil, err
	}
	var u user
	if err := json.Unmarshal(body, &u); err != nil {
		return nil, err
	}
	h, err := p.holder(r, u)
	if err != nil {
		return nil, err
	}
	options, data, err := p.passkeys.BeginRegistration(h,
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired}),
		webauthn.WithExclusions(webauthn.Credentials(h.credentials).CredentialDescriptors()))
	if err != nil {
		return nil, err
	}
	return options.Response, p.begin(w, r, ceremony{u.Person, u.Role, invitation, *data})
}

func (p *Pad) holder(r *http.Request, u user) (*holder, error) {
	a, err := p.Accounts.Account(r.Context(), u.Person)
	if errors.Is(err, workflow.ErrNotFound) {
		return &holder{Account: account.Account{Person: u.Person, Role: u.Role}}, nil
	}
	if err != nil {
		return nil, err
	}
	a.Role = u.Role // the newest invitation says
	return holderOf(a)
}

func (p *Pad) finishEnrolment(w http.ResponseWriter, r *http.Request) error {
	c, err := p.finish(w, r)
	if err != nil {
		return err
	}
	response, err := protocol.ParseCredentialCreationResponseBody(r.Body)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	h, err := p.holder(r, user{c.Person, c.Role})
	if err != nil {
		return err
	}
	credential, err := p.passkeys.CreateCredential(h, c.Session, response)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	err = p.Accounts.ChangeAccount(r.Context(), c.Person, c.Invitation, func(a *account.Account, _ bool) error {
		a.Role = c.Role
		return change(a, func(list []webauthn.Credential) []webauthn.Credential { return append(list, *credential) })
	})
	if err != nil {
		return err
	}
	return p.open(w, r, user{h.Person, h.Role})
}

// Invite makes a one-time link by which a person enrols a passkey. The secret
// stands behind the #, which browsers send to nobody.
func Invite(ctx context.Context, accounts account.Store, origin string, person envelope.ID, role string, until time.Time) (link string, err error) {
	body, err := json.Marshal(user{person, role})
	if err != nil {
		return "", err
	}
	text, hash := account.NewSecret()
	return origin + "/enrol#" + text, accounts.PutSecret(ctx, account.Invitation, hash, person, body, until)
}
