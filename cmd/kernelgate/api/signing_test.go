package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// rows is a store of short-lived rows, as all replicas share it: by hash, and
// another kind's row is left as it is.
type rows struct {
	mu   sync.Mutex
	rows map[string]row
}

type row struct {
	kind  account.Kind
	body  []byte
	until time.Time
}

func (s *rows) PutSecret(ctx context.Context, kind account.Kind, hash string, who envelope.ID, body []byte, until time.Time) error {
	return s.ChangeSecret(ctx, kind, hash, who, until, func([]byte) ([]byte, error) { return body, nil })
}

func (s *rows) ChangeSecret(_ context.Context, kind account.Kind, hash string, _ envelope.ID, until time.Time, f func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, found := s.rows[hash]
	if found && old.kind != kind {
		return account.ErrOtherKind
	}
	body, err := f(old.body)
	if err == nil {
		s.rows[hash] = row{kind, body, until}
	}
	return err
}

func (s *rows) Secret(_ context.Context, kind account.Kind, hash string) ([]byte, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, found := s.rows[hash]
	if !found || r.kind != kind || !r.until.After(time.Now()) {
		return nil, time.Time{}, workflow.ErrNotFound
	}
	return r.body, r.until, nil
}

func startDesk(t *testing.T) *gateway {
	t.Helper()
	g := start(t)
	for i := range 10 {
		g.engine.upgrades = append(g.engine.upgrades, api.Upgrade{Id: upgradeOf(i)})
	}
	return g
}

func upgradeOf(i int) string { return upgradeID[:len(upgradeID)-1] + string(rune('0'+i)) }

func approval(i int) client.NewSigningRequest {
	return client.NewSigningRequest{UpgradeId: upgradeOf(i), Decision: client.SigningApprove}
}

// What a page asks reaches the agent of the same person, and of nobody else;
// what the agent says reaches the page.
func TestAgentIsAskedAndAnswers(t *testing.T) {
	g := startDesk(t)
	ana, ben := g.clientOf(t, "ana", "approver"), g.clientOf(t, "ben", "approver")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	before, err := ana.AskSigning(ctx, approval(0))
	check(t, err)
	got := make(chan client.SigningRequest, 10)
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	connected := make(chan struct{}, 10)
	go func() {
		ended <- ana.WatchSigning(watching, func() { connected <- struct{}{} }, func(r client.SigningRequest) error { got <- r; return nil })
	}()
	if r := <-got; r.Id != before.Id || r.State != client.SigningWaiting {
		t.Fatalf("the agent got %+v first, want %+v", r, before)
	}
	<-connected
	list, err := ana.SigningRequests(ctx)
	check(t, err)
	if !list.AgentConnected || len(list.Requests) != 1 {
		t.Fatalf("with an agent the list is %+v", list)
	}
	other, err := ben.SigningRequests(ctx)
	check(t, err)
	if other.AgentConnected || len(other.Requests) != 0 {
		t.Fatalf("another person sees %+v", other)
	}
	asked, err := ana.AskSigning(ctx, approval(1))
	check(t, err)
	if r := <-got; r.Id != asked.Id {
		t.Fatalf("the agent got %s, want %s", r.Id, asked.Id)
	}
	if _, err := ben.ReportSigning(ctx, asked.Id, client.SigningSigned, ""); !isCode(err, "not_found") {
		t.Fatalf("another person's report: %v", err)
	}
	_, err = ana.ReportSigning(ctx, asked.Id, client.SigningShown, "")
	check(t, err)
	_, err = ana.ReportSigning(ctx, asked.Id, client.SigningDeclined, "not before Monday")
	check(t, err)
	if _, err := ana.ReportSigning(ctx, asked.Id, client.SigningSigned, ""); !isCode(err, "conflict") {
		t.Fatalf("a second end: %v", err)
	}
	list, err = ana.SigningRequests(ctx)
	check(t, err)
	if r := list.Requests[1]; r.State != client.SigningDeclined || *r.Detail != "not before Monday" {
		t.Fatalf("the page sees %+v", r)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the agent's watch ended with %v", err)
	}
	waitFor(t, func() bool {
		list, err := ana.SigningRequests(ctx)
		return err == nil && !list.AgentConnected
	})
}

func TestSigningRequestsAreBounded(t *testing.T) {
	g := startDesk(t)
	ana := g.clientOf(t, "ana", "approver")
	for i := range 8 {
		_, err := ana.AskSigning(t.Context(), approval(i))
		check(t, err)
	}
	if _, err := ana.AskSigning(t.Context(), approval(8)); !isCode(err, "conflict") {
		t.Fatalf("the ninth: %v", err)
	}
	again, err := ana.AskSigning(t.Context(), approval(3)) // takes the place of the one before
	check(t, err)
	_, err = ana.ReportSigning(t.Context(), again.Id, client.SigningWithdrawn, "")
	check(t, err)
	_, err = ana.AskSigning(t.Context(), approval(8))
	check(t, err)
	list, err := ana.SigningRequests(t.Context())
	check(t, err)
	if len(list.Requests) != 8 {
		t.Fatalf("%d requests are kept", len(list.Requests))
	}
}

func TestSigningRequestsAreChecked(t *testing.T) {
	g := startDesk(t)
	ok := `{"upgradeId":"` + upgradeOf(0) + `","decision":"approve"`
	for name, c := range map[string]struct {
		role, body, code string
	}{
		"wrong role":            {"auditor", ok + `}`, "forbidden"},
		"unknown upgrade":       {"approver", `{"upgradeId":"0190a5e0-0000-7000-8000-0000000000ff","decision":"approve"}`, "not_found"},
		"no UUID":               {"approver", `{"upgradeId":"x","decision":"approve"}`, "bad_request"},
		"no decision":           {"approver", `{"upgradeId":"` + upgradeOf(0) + `","decision":"sign"}`, "bad_request"},
		"unknown member":        {"approver", ok + `,"manifestDigest":"sha256:00"}`, "bad_request"},
		"reason of an approval": {"approver", ok + `,"reason":"x"}`, "bad_request"},
		"control characters":    {"approver", ok + `,"notes":"a\u001b[2J"}`, "bad_request"},
		"reject needs a reason": {"approver", `{"upgradeId":"` + upgradeOf(0) + `","decision":"reject"}`, "bad_request"},
		"no tests asked":        {"approver", `{"upgradeId":"` + upgradeOf(0) + `","decision":"request-tests","tests":[]}`, "bad_request"},
		"too large":             {"approver", ok + `,"notes":"` + strings.Repeat("a", 20<<10) + `"}`, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			if code := g.post(t, c.role, "/v1/signing-requests", c.body); code != c.code {
				t.Errorf("code %q, want %q", code, c.code)
			}
		})
	}
	if code := g.post(t, "approver", "/v1/signing-requests/x", `{"state":"waiting"}`); code != "bad_request" {
		t.Errorf("a report of waiting: %q", code)
	}
	if code := g.post(t, "approver", "/v1/signing-requests/x", `{"state":"signed"}`); code != "not_found" {
		t.Errorf("a report on nothing: %q", code)
	}
}

func (g *gateway) clientOf(t *testing.T, id, role string) *client.Client {
	t.Helper()
	c, err := client.New(g.url, g.token(t, id, role), nil)
	check(t, err)
	return c
}

func isCode(err error, code string) bool {
	var problem *client.Error
	return errors.As(err, &problem) && problem.Code == code
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

// post is the code of the answer to a body.
func (g *gateway) post(t *testing.T, role, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+path, strings.NewReader(body))
	check(t, err)
	request.Header.Set("Content-Type", "application/json")
	if role != "" {
		request.Header.Set("Authorization", "Bearer "+g.token(t, "ana", role))
	}
	answer, err := http.DefaultClient.Do(request)
	check(t, err)
	defer func() { check(t, answer.Body.Close()) }()
	var p client.Problem
	check(t, json.UnmarshalRead(answer.Body, &p))
	return p.Code
}

// A session may ask, and is no agent.
func TestSessionIsNoAgent(t *testing.T) {
	g := start(t)
	tokens, err := api.OpenTokens(g.tokens)
	check(t, err)
	handler, err := api.New(api.Config{Engine: g.engine, Tokens: tokens, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		SigningRequests: &rows{rows: map[string]row{}},
		Sessions:        func(*http.Request) (envelope.ID, string, bool, error) { return "ana", "approver", true, nil }})
	check(t, err)
	ask := func(accept string) int {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/signing-requests", nil)
		request.Header.Set("Accept", accept)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		return answer.Code
	}
	if code := ask("application/json"); code != http.StatusOK {
		t.Errorf("a session's list: %d", code)
	}
	if code := ask("text/event-stream"); code != http.StatusForbidden {
		t.Errorf("a session's stream: %d", code)
	}
}
