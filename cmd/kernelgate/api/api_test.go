package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const upgradeID = "0190a5e0-0000-7000-8000-000000000001"

// engine keeps what it is given in memory and verifies manifests by the real
// rules of form and one key. Methods that a test does not use are the nil
// interface's.
type engine struct {
	api.Engine
	key signer.Signer

	mu       sync.Mutex
	records  map[envelope.Digest]envelope.Envelope
	upgrades []api.Upgrade
	fail     error
}

func (e *engine) Submit(_ context.Context, kind api.Kind, env envelope.Envelope) (api.Receipt, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return api.Receipt{}, e.fail
	}
	if kind != api.KindManifest {
		return api.Receipt{}, fmt.Errorf("%w: only manifests are taken", workflow.ErrConflict)
	}
	m, err := upgrade.OpenManifest(env)
	if err != nil {
		return api.Receipt{}, err
	}
	if err := signer.Verify(signer.Ed25519, e.key.Public(), env.PAE(), env.Signatures[0].Sig); err != nil {
		return api.Receipt{}, err
	}
	digest := env.PayloadDigest()
	_, known := e.records[digest]
	if !known {
		e.records[digest] = env
		e.upgrades = append(e.upgrades, api.Upgrade{Id: string(m.UpgradeID), Target: string(m.Target.Name), Type: string(m.Type), State: "draft",
			ManifestDigest: digest.String(), ProposedBy: string(m.ProposedBy)})
	}
	return api.Receipt{RecordDigest: digest.String(), Added: !known, UpgradeId: &e.upgrades[0].Id, State: &e.upgrades[0].State}, nil
}

func (e *engine) Upgrades(_ context.Context, q api.Query) (api.UpgradePage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	page := api.UpgradePage{Upgrades: e.upgrades}
	next := fmt.Sprint("after-", q.Limit)
	page.Next = &next
	return page, nil
}

func (e *engine) Upgrade(_ context.Context, id envelope.UUID) (api.UpgradeDetail, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.upgrades {
		if u.Id == string(id) {
			return api.UpgradeDetail{Upgrade: u, Records: []api.Record{}}, nil
		}
	}
	return api.UpgradeDetail{}, workflow.ErrNotFound
}

func (e *engine) Events(_ context.Context, from int64, limit int) ([]api.Event, error) {
	var events []api.Event
	for seq := from; seq < 5 && len(events) < limit; seq++ {
		events = append(events, api.Event{Seq: seq, Leaf: []byte("leaf")})
	}
	return events, nil
}

func (e *engine) Preview(_ context.Context, m upgrade.Manifest) (api.PolicyPreview, error) {
	return api.PolicyPreview{Engine: "test", PolicyDigest: m.PatchHash.String(), Violations: []api.Violation{{Rule: "no", Message: string(m.Target.Name)}}}, e.fail
}

func (e *engine) AcceptRegistry(context.Context, keyregistry.SignedDocument) error { return e.fail }

type gateway struct {
	url    string
	engine *engine
	tokens string
	guard  error

	handler http.Handler
}

const artifactLimit = 1 << 10

func start(t *testing.T) *gateway {
	t.Helper()
	return startWith(t, func(e *engine) api.Engine { return e })
}

// startWith wraps the engine.
func startWith(t *testing.T, wrap func(*engine) api.Engine) *gateway {
	t.Helper()
	key, err := filekey.New(ed25519.NewKeyFromSeed(make([]byte, 32)), signer.Ed25519)
	check(t, err)
	store, err := artifact.OpenDir(t.TempDir(), artifactLimit)
	check(t, err)
	t.Cleanup(func() { check(t, store.Close()) })
	g := &gateway{engine: &engine{key: key, records: map[envelope.Digest]envelope.Envelope{}}, tokens: filepath.Join(t.TempDir(), "tokens")}
	g.token(t, "first", "auditor")
	tokens, err := api.OpenTokens(g.tokens)
	check(t, err)
	handler, err := api.New(api.Config{Engine: wrap(g.engine), Artifacts: store, Tokens: tokens, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		SigningRequests: &rows{rows: map[string]row{}},
		Health: api.Health{MaxLogLag: 10,
			Database: func(context.Context) error { return nil },
			Guard:    func(context.Context) error { return g.guard },
			LogLag:   func(context.Context) (int64, error) { return 3, nil }}})
	check(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	g.url, g.handler = server.URL, handler
	return g
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) token(t *testing.T, id, role string) string {
	t.Helper()
	token, err := api.CreateToken(g.tokens, id, role)
	check(t, err)
	return token
}

func (g *gateway) client(t *testing.T, role string) *client.Client {
	t.Helper()
	c, err := client.New(g.url, g.token(t, "someone", role), nil)
	check(t, err)
	return c
}

func (g *gateway) manifest(t *testing.T) envelope.Envelope {
	t.Helper()
	now, err := envelope.ParseTime("2026-01-02T03:04:05Z")
	check(t, err)
	m := upgrade.Manifest{KernelID: "k1", UpgradeID: upgradeID, Type: upgrade.TypeCode,
		Target:       upgrade.Target{Name: "web", ManifestID: "web-1"},
		BaseRevision: upgrade.None, PatchHash: envelope.DigestOf([]byte("patch")), Rationale: "why",
		Impact:        upgrade.Impact{Components: []string{"web"}, Downtime: "none"},
		Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}},
		Timestamp:     now, ProposedBy: "tina", KeyID: envelope.KeyID(g.engine.key.Public().KeyID())}
	env, err := envelope.Seal(t.Context(), g.engine.key, envelope.TypeManifest, m)
	check(t, err)
	return env
}

func ptr[T any](v T) *T { return &v }

func wantCode(t *testing.T, err error, status int, code string) *client.Error {
	t.Helper()
	var problem *client.Error
	if !errors.As(err, &problem) {
		t.Fatalf("got %v, want a problem with code %s", err, code)
	}
	if problem.Status != status || problem.Code != code {
		t.Fatalf("got %d %s (%s), want %d %s", problem.Status, problem.Code, problem.Detail, status, code)
	}
	return problem
}

func TestRecordTwice(t *testing.T) {
	g := start(t)
	c := g.client(t, "requestor")
	env := g.manifest(t)
	first, err := c.Submit(t.Context(), env)
	check(t, err)
	second, err := c.Submit(t.Context(), env)
	check(t, err)
	if !first.Added || second.Added || first.RecordDigest != env.PayloadDigest().String() || second.RecordDigest != first.RecordDigest {
		t.Fatalf("receipts %+v, then %+v", first, second)
	}
	detail, err := c.Upgrade(t.Context(), upgradeID)
	check(t, err)
	if detail.Upgrade.Target != "web" || detail.Upgrade.ManifestDigest != first.RecordDigest {
		t.Fatalf("got %+v", detail.Upgrade)
	}
	page, err := c.Upgrades(t.Context(), client.ListUpgradesParams{Limit: ptr(int32(7)), State: ptr([]client.State{"draft", "applied"})})
	check(t, err)
	if len(page.Upgrades) != 1 || page.Next == nil || *page.Next != "after-7" {
		t.Fatalf("got %+v", page)
	}
}

func TestRefusals(t *testing.T) {
	g := start(t)
	c := g.client(t, "requestor")
	forged := g.manifest(t)
	forged.Signatures[0].Sig[3] ^= 1
	_, err := c.Submit(t.Context(), forged)
	if p := wantCode(t, err, 422, "signature_invalid"); p.Class() != failure.SignatureInvalid {
		t.Fatalf("class %q", p.Class())
	}
	other := g.manifest(t)
	other.PayloadType = envelope.TypeAuditEvent
	_, err = c.Submit(t.Context(), other)
	wantCode(t, err, 400, "wrong_payload_type")
	other.PayloadType = envelope.TypeApproval
	_, err = c.Submit(t.Context(), other)
	wantCode(t, err, 403, "forbidden")
	_, err = g.client(t, "operator").Submit(t.Context(), other)
	if p := wantCode(t, err, 409, "conflict"); p.Detail != "only manifests are taken" {
		t.Errorf("the detail is %q", p.Detail)
	}
	_, err = g.client(t, "auditor").Submit(t.Context(), g.manifest(t))
	wantCode(t, err, 403, "forbidden")
	_, err = c.Upgrade(t.Context(), "0190a5e0-0000-7000-8000-00000000ffff")
	wantCode(t, err, 404, "not_found")
	_, err = c.Upgrade(t.Context(), "not-a-uuid")
	wantCode(t, err, 400, "bad_request")
	_, err = c.Upgrades(t.Context(), client.ListUpgradesParams{Limit: ptr(int32(201))})
	wantCode(t, err, 400, "bad_request")
	_, err = c.Upgrades(t.Context(), client.ListUpgradesParams{State: ptr([]client.State{"nonsense"})})
	wantCode(t, err, 400, "bad_request")
	g.engine.fail = workflow.ErrGuardUnavailable
	_, err = c.Submit(t.Context(), g.manifest(t))
	if p := wantCode(t, err, 503, "unavailable"); p.RetryAfter <= 0 {
		t.Fatal("503 without Retry-After")
	}
	g.engine.fail = fmt.Errorf("%w: nowhere", workflow.ErrUnknownTarget)
	_, err = c.Submit(t.Context(), g.manifest(t))
	wantCode(t, err, 422, "field_invalid")
	g.engine.fail = fmt.Errorf("%w: secret of the inside", workflow.ErrTargetUnavailable)
	_, err = c.Submit(t.Context(), g.manifest(t))
	if p := wantCode(t, err, 503, "unavailable"); strings.Contains(p.Detail, "secret") || !strings.Contains(p.Detail, "target") {
		t.Fatalf("the detail is %q", p.Detail)
	}
	g.engine.fail = errors.New("secret of the inside")
	_, err = c.Submit(t.Context(), g.manifest(t))
	if p := wantCode(t, err, 500, "internal"); strings.Contains(p.Detail, "secret") {
		t.Fatalf("the inside leaks: %s", p.Detail)
	}
}

// The policy is asked about a manifest that nobody has signed, for who may propose.
func TestPolicyPreview(t *testing.T) {
	g := start(t)
	m, err := upgrade.OpenManifest(g.manifest(t))
	check(t, err)
	for role, want := range map[string]bool{"approver": true, "requestor": true, "operator": true, "ci": false, "auditor": false} {
		p, err := g.client(t, role).PreviewPolicy(t.Context(), *m)
		if !want {
			wantCode(t, err, 403, "forbidden")
			continue
		}
		check(t, err)
		if p.Allow || p.PolicyDigest != m.PatchHash.String() || len(p.Violations) != 1 || p.Violations[0] != (client.Violation{Rule: "no", Message: "web"}) {
			t.Errorf("%s: %+v", role, p)
		}
	}
	token := g.token(t, "tina", "requestor")
	for body, want := range map[string]int{`{}`: 200, `{"target":{"name":"web"},"unknown":1}`: 400, `{"target":{"name":"No"}}`: 400, `nonsense`: 400, `{"rationale":"` + strings.Repeat("x", envelope.MaxPayload) + `"}`: 413} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v1/policy/preview", strings.NewReader(body))
		check(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		check(t, resp.Body.Close())
		if resp.StatusCode != want {
			t.Errorf("%.60s answers %d, not %d", body, resp.StatusCode, want)
		}
	}
	g.engine.fail = fmt.Errorf("%w: nowhere", workflow.ErrUnknownTarget)
	_, err = g.client(t, "requestor").PreviewPolicy(t.Context(), *m)
	wantCode(t, err, 422, "field_invalid")
}

// Nothing that the API answers is shown by a browser as a page of its origin.
func TestAnswersAreNoPages(t *testing.T) {
	g := start(t)
	token := g.token(t, "tina", "requestor")
	digest, err := g.client(t, "requestor").PutArtifact(t.Context(), strings.NewReader("<script>alert(1)</script>"))
	check(t, err)
	for _, path := range []string{"/v1/artifacts/" + digest.String(), "/v1/upgrades", "/v1/no-such-thing", "/v1/upgrades/none", "/livez"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, nil)
		check(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		check(t, resp.Body.Close())
		h := resp.Header
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || strings.Contains(h.Get("Content-Type"), "html") {
			t.Errorf("%s answers %v", path, h)
		}
		if strings.HasPrefix(path, "/v1/artifacts/") && h.Get("Content-Disposition") != "attachment" {
			t.Errorf("an artifact is not a download: %v", h)
		}
	}
}

func TestTokens(t *testing.T) {
	g := start(t)
	for _, token := range []string{"", "kgt_wrong"} {
		c, err := client.New(g.url, token, nil)
		check(t, err)
		_, err = c.Events(t.Context(), 0, 1)
		wantCode(t, err, 401, "unauthenticated")
	}
	c := g.client(t, "auditor") // made after the gateway has read the file
	_, err := c.Events(t.Context(), 0, 1)
	check(t, err)
	check(t, os.Chmod(g.tokens, 0o644))
	check(t, os.WriteFile(g.tokens, []byte("[]"), 0o644))
	if _, err := c.Events(t.Context(), 0, 1); err == nil {
		t.Fatal("a token of a file that others read was let in")
	}
	check(t, os.Chmod(g.tokens, 0o600))
	_, err = c.Events(t.Context(), 0, 1)
	wantCode(t, err, 401, "unauthenticated") // the file is empty: revoked
	if _, err := api.CreateToken(g.tokens, "x", "root"); err == nil {
		t.Fatal("an unknown role was accepted")
	}
}

func TestEventPages(t *testing.T) {
	g := start(t)
	c := g.client(t, "auditor")
	var seqs []int64
	for from := ptr(int64(0)); from != nil; {
		page, err := c.Events(t.Context(), *from, 2)
		check(t, err)
		for _, e := range page.Events {
			seqs = append(seqs, e.Seq)
		}
		from = page.Next
	}
	if fmt.Sprint(seqs) != "[0 1 2 3 4]" {
		t.Fatalf("got %v", seqs)
	}
}

func TestArtifacts(t *testing.T) {
	g := start(t)
	c := g.client(t, "ci")
	content := bytes.Repeat([]byte("x"), artifactLimit)
	digest, err := c.PutArtifact(t.Context(), bytes.NewReader(content))
	check(t, err)
	var got bytes.Buffer
	check(t, c.GetArtifact(t.Context(), digest, &got))
	if digest != envelope.DigestOf(content) || !bytes.Equal(got.Bytes(), content) {
		t.Fatal("the artifact came back changed")
	}
	_, err = c.PutArtifact(t.Context(), bytes.NewReader(append(content, 'y')))
	wantCode(t, err, 413, "too_large")
	wantCode(t, c.GetArtifact(t.Context(), envelope.DigestOf(nil), io.Discard), 404, "not_found")
	_, err = g.client(t, "auditor").PutArtifact(t.Context(), bytes.NewReader(content))
	wantCode(t, err, 403, "forbidden")
	answer := g.send(t, http.MethodPut, "/v1/artifacts?digest="+envelope.DigestOf(nil).String(), "application/octet-stream", "abc")
	if answer.status != 422 || !strings.Contains(answer.body, "artifact_mismatch") {
		t.Fatalf("got %+v", answer)
	}
}

type answer struct {
	status int
	body   string
	header http.Header
}

// send is a bare request by an operator, for what the SDK never sends.
func (g *gateway) send(t *testing.T, method, path, media, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(body))
	check(t, err)
	req.Header.Set("Content-Type", media)
	req.Header.Set("Authorization", "Bearer "+g.token(t, "op", "operator"))
	res, err := http.DefaultClient.Do(req)
	check(t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	check(t, err)
	return answer{res.StatusCode, string(data), res.Header}
}

// sendWith is a GET by an operator with one more header.
func (g *gateway) sendWith(t *testing.T, path, name, value string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, nil)
	check(t, err)
	req.Header.Set(name, value)
	req.Header.Set("Authorization", "Bearer "+g.token(t, "op", "operator"))
	res, err := http.DefaultClient.Do(req)
	check(t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	check(t, err)
	return answer{res.StatusCode, string(data), res.Header}
}

func TestHostileRequests(t *testing.T) {
	g := start(t)
	for _, c := range []struct {
		method, path, media, body string
		status                    int
		code                      string
	}{
		{"POST", "/v1/records", "application/json", `{"payload":"","payload":""}`, 400, "envelope_malformed"},
		{"POST", "/v1/records", "application/json", strings.Repeat(" ", envelope.MaxWire+1), 413, "too_large"},
		{"POST", "/v1/records", "text/plain", `{}`, 415, "unsupported_media_type"},
		{"POST", "/v1/registry", "application/json", `{"document":"","extra":1}`, 400, "bad_request"},
		{"POST", "/v1/registry", "application/json", strings.Repeat(" ", 3<<20+1), 413, "too_large"},
		{"DELETE", "/v1/records", "", "", 405, "method_not_allowed"},
		{"GET", "/v1/nothing", "", "", 404, "not_found"},
		{"GET", "/v1/events?from=-1", "", "", 400, "bad_request"},
		{"GET", "/v1/events?from=abc", "", "", 400, "bad_request"},
		{"GET", "/v1/artifacts/sha256:ABC", "", "", 400, "bad_request"},
	} {
		got := g.send(t, c.method, c.path, c.media, c.body)
		if got.status != c.status || !strings.Contains(got.body, `"code":"`+c.code+`"`) || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, got.status, got.body, c.status, c.code)
		}
	}
}

func TestHealth(t *testing.T) {
	g := start(t)
	if got := g.send(t, http.MethodGet, "/livez", "", ""); got.status != 200 {
		t.Fatalf("livez: %+v", got)
	}
	if got := g.send(t, http.MethodGet, "/readyz", "", ""); got.status != 200 || !strings.Contains(got.body, `"ready":true`) {
		t.Fatalf("readyz: %+v", got)
	}
	metrics := g.send(t, http.MethodGet, "/metrics", "", "").body
	for _, want := range []string{`kernelgate_check_up{check="guard"} 1`, "kernelgate_log_unsealed_events 3", `route="/readyz"`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics without %s", want)
		}
	}
	broken := start(t)
	broken.guard = errors.New("token locked, PIN 1234")
	got := broken.send(t, http.MethodGet, "/readyz", "", "")
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, `"guard":"failed"`) || strings.Contains(got.body, "PIN") {
		t.Fatalf("readyz: %+v", got)
	}
}

func TestClientRefusesPlainHTTP(t *testing.T) {
	for _, base := range []string{"http://gateway.example", "ftp://localhost", "gateway"} {
		if _, err := client.New(base, "", nil); err == nil {
			t.Errorf("%s was accepted", base)
		}
	}
}
