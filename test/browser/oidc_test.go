package browser_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
)

// identityProvider is a small real one: discovery, authorization, token with
// PKCE, keys. It signs whoever it is told in, and lies where a test says so.
type identityProvider struct {
	*httptest.Server
	key     *rsa.PrivateKey
	mu      sync.Mutex
	email   string
	lie     func(claims map[string]any)
	forge   *rsa.PrivateKey // signs instead of key
	issued  map[string]url.Values
	badPKCE bool
}

func newIdentityProvider(t *testing.T) *identityProvider {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	o := &identityProvider{key: key, email: "ryan@example.org", lie: func(map[string]any) {}, issued: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		o.answer(w, map[string]any{"issuer": o.URL, "authorization_endpoint": o.URL + "/authorize", "token_endpoint": o.URL + "/token", "jwks_uri": o.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		o.answer(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("GET /authorize", o.authorize)
	mux.HandleFunc("POST /token", o.token)
	o.Server = httptest.NewServer(mux)
	t.Cleanup(o.Close)
	return o
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (o *identityProvider) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.MarshalWrite(w, v)
}

func (o *identityProvider) authorize(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := r.URL.Query()
	code := rand.Text()
	o.issued[code] = q
	http.Redirect(w, r, q.Get("redirect_uri")+"?code="+code+"&state="+url.QueryEscape(q.Get("state")), http.StatusFound)
}

func (o *identityProvider) token(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked, ok := o.issued[r.FormValue("code")]
	delete(o.issued, r.FormValue("code"))
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	id, secret, _ := r.BasicAuth()
	if !ok || asked.Get("code_challenge_method") != "S256" || b64(challenge[:]) != asked.Get("code_challenge") || id != "kernelgate" || secret != "hush" {
		o.badPKCE = true
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	claims := map[string]any{"iss": o.URL, "aud": "kernelgate", "sub": "17", "email": o.email, "email_verified": true, "nonce": asked.Get("nonce"),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	o.lie(claims)
	payload, _ := json.Marshal(claims)
	text := b64([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + b64(payload)
	key := o.key
	if o.forge != nil {
		key = o.forge
	}
	sum := sha256.Sum256([]byte(text))
	sig, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	o.answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": text + "." + b64(sig)})
}

func (o *identityProvider) world(t *testing.T) *world {
	return newWorld(t, func(w *world) {
		w.oidc = &commandpad.OIDC{Name: "Example", Issuer: o.URL, ClientID: "kernelgate", ClientSecret: "hush", Claim: "email",
			People: map[string]commandpad.Identity{"ryan@example.org": {Person: "ryan", Role: "approver"}, "audit@example.org": {Person: "ana", Role: "auditor"}}}
	})
}

func TestSignInByAnIdentityProviderInTheBrowser(t *testing.T) {
	o := newIdentityProvider(t)
	w := o.world(t)
	p := w.sit(t, browser(t), "ryan")
	p.open("/audit")
	p.sees("Sign in with Example")
	p.shot("sign-in-oidc")
	p.click(`a[href^="/oidc/begin"]`)
	p.sees("Whoever keeps one checkpoint") // the page that was asked for, although the way led over another site
	if who := eval[string](p, `document.body.dataset.person`); who != "ryan" {
		t.Fatalf("signed in as %q", who)
	}
}

// visit follows the exchange as a browser does and says how it ends.
func (o *identityProvider) visit(t *testing.T, w *world, edit func(callback *url.URL)) (status int, session bool) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	check(t, err)
	client := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == "/oidc/callback" && edit != nil {
			edit(req.URL)
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+"/oidc/begin?next=%2Faudit", nil)
	check(t, err)
	resp, err := client.Do(req)
	check(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	check(t, err)
	at, err := url.Parse(w.origin)
	check(t, err)
	for _, c := range jar.Cookies(at) {
		session = session || c.Name == "kernelgate-session" && c.Value != ""
	}
	return resp.StatusCode, session
}

func TestWhatAnIdentityProviderSaysIsChecked(t *testing.T) {
	o := newIdentityProvider(t)
	w := o.world(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	set := func(name string, value any) func() {
		return func() { o.lie = func(c map[string]any) { c[name] = value } }
	}
	if status, in := o.visit(t, w, nil); status != http.StatusOK || !in {
		t.Fatalf("an honest exchange answers %d, session %t", status, in)
	}
	for name, c := range map[string]struct {
		tell func()
		edit func(*url.URL)
	}{
		"an unverified address":  {set("email_verified", false), nil},
		"verified as text":       {set("email_verified", "true"), nil},
		"somebody unknown":       {set("email", "eve@example.org"), nil},
		"an address in capitals": {set("email", "RYAN@example.org"), nil},
		"no address":             {func() { o.lie = func(c map[string]any) { delete(c, "email") } }, nil},
		"another audience":       {set("aud", "somebody-else"), nil},
		"another issuer":         {set("iss", "https://evil.example"), nil},
		"an old token":           {set("exp", time.Now().Add(-time.Hour).Unix()), nil},
		"another exchange's":     {set("nonce", "n"), nil},
		"no nonce":               {func() { o.lie = func(c map[string]any) { delete(c, "nonce") } }, nil},
		"another key":            {func() { o.forge = other }, nil},
		"another state":          {nil, func(u *url.URL) { u.RawQuery = strings.Replace(u.RawQuery, "state=", "state=x", 1) }},
		"no state":               {nil, func(u *url.URL) { u.RawQuery = strings.Split(u.RawQuery, "&")[0] }},
		"another code":           {nil, func(u *url.URL) { u.RawQuery = strings.Replace(u.RawQuery, "code=", "code=x", 1) }},
		"the provider's refusal": {nil, func(u *url.URL) { u.RawQuery += "&error=access_denied" }},
	} {
		o.lie, o.forge = func(map[string]any) {}, nil
		if c.tell != nil {
			c.tell()
		}
		if status, in := o.visit(t, w, c.edit); status != http.StatusForbidden || in {
			t.Errorf("%s: answers %d, session %t", name, status, in)
		}
	}
	o.lie, o.forge = func(map[string]any) {}, nil
	// A callback that this browser did not begin, as another site may cause.
	if status := w.call(t, "", "GET", "/oidc/callback?code=c&state=s", "", nil); status != http.StatusForbidden {
		t.Errorf("a callback without an exchange answers %d", status)
	}
	// Where to go afterwards is a path of these pages.
	for next, want := range map[string]string{"//evil.example/x": "/", "https://evil.example": "/", "/\\evil.example": "/", "/upgrades/1?x=2": "/upgrades/1?x=2", "javascript:alert(1)": "/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+"/sign-in?next="+url.QueryEscape(next), nil)
		check(t, err)
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		check(t, resp.Body.Close())
		if !strings.Contains(string(body), `"/oidc/begin?next=`+url.QueryEscape(want)+`"`) && !strings.Contains(string(body), `next=`+strings.ToLower(url.QueryEscape(want))) {
			t.Errorf("next %q does not lead to %q: %s", next, want, body)
		}
	}
}
