package commandpad

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRate(now)
	for i := range signAhead {
		if !r.take(now) {
			t.Fatalf("refused after %d", i)
		}
	}
	if r.take(now) {
		t.Error("one too many")
	}
	if r.take(now.Add(-time.Hour)) {
		t.Error("a clock that went back gave one")
	}
	r = newRate(now)
	r.left = 0
	if r.take(now.Add(time.Second/signRate/2)) || !r.take(now.Add(time.Second/signRate)) || r.take(now.Add(time.Second/signRate)) {
		t.Error("it does not fill by its rate")
	}
	r.take(now.Add(time.Hour))
	if r.left > signAhead {
		t.Errorf("%f are more than %d", r.left, signAhead)
	}
}

// So is who floods the way to the identity provider, before it is asked.
func TestIdentityProviderFlood(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p, err := New(Config{Origin: "http://localhost:8420", Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler), OIDC: &OIDC{Issuer: "http://127.0.0.1:1", ClientID: "k"}})
	if err != nil {
		t.Fatal(err)
	}
	p.rate.left = 0
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/oidc/begin", nil))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("answered %d, %v", w.Code, w.Header())
	}
}

// Who floods the sign-in is turned away before anything is stored.
func TestSignInFlood(t *testing.T) {
	const origin = "http://localhost:8420"
	now := time.Unix(1_800_000_000, 0)
	p := &Pad{Config: Config{Origin: origin, Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}, rate: newRate(now)}
	stored := 0
	call := p.own(func(http.ResponseWriter, *http.Request) (any, error) {
		stored++
		return struct{}{}, nil
	})
	send := func(path string) int {
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
		req.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		call(w, req)
		return w.Code
	}
	for range signAhead + 5 {
		send("/session/begin")
	}
	if got := send("/enrolment/begin"); got != http.StatusTooManyRequests || stored != signAhead {
		t.Errorf("answered %d, and %d calls came through where %d may", got, stored, signAhead)
	}
	if got := send(reviewPath); got != http.StatusOK {
		t.Errorf("a call that needs a session answers %d", got)
	}
	now = now.Add(time.Second)
	if got := send("/session/begin"); got != http.StatusOK {
		t.Errorf("a second later: %d", got)
	}
}
