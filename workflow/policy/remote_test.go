package policy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/runtime"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// startOPA runs OPA's own server on loopback, with the files at paths.
func startOPA(t *testing.T, paths ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	params := runtime.NewParams()
	params.Addrs = &[]string{"127.0.0.1:0"}
	params.Paths = paths
	params.Logger = logging.NewNoOpLogger()
	params.ConsoleLogger = logging.NewNoOpLogger()
	params.EnableVersionCheck = false
	params.SkipKnownSchemaCheck = true
	params.GracefulShutdownPeriod = 1
	rt, err := runtime.NewRuntime(ctx, params)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- rt.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 500 {
		if addrs := rt.Addrs(); len(addrs) > 0 {
			return "http://" + addrs[0]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the OPA server did not start")
	return ""
}

func remote(t *testing.T, base string, options policy.RemoteOptions) *policy.RemotePolicy {
	t.Helper()
	p, err := policy.Remote(base, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// A policy answers the same in the gateway and in an OPA server.
func TestRealServer(t *testing.T) {
	const strict = `{"sentinelnet": {
		"blocked": [{"name": "tuesday", "why": "ask the board", "components": ["sign*"], "windows": [{"weekdays": ["tue"]}]}, {"name": "note", "why": "look twice", "effect": "warn"}],
		"budgets": [{"name": "web", "target": "w*", "currency": "EUR", "limitMinorUnits": 9000}],
		"onCanaryFailure": {"default": "rollback", "targets": {"web": "escalate"}},
		"tests": [{"component": "*", "tests": ["e2e"]}]}}`
	for name, c := range map[string]struct {
		settings   string
		allow      bool
		violations int
	}{"default": {"", true, 0}, "strict": {strict, false, 5}, "mistaken": {`{"sentinelnet": 1}`, false, 2}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "policy")
			if err := os.CopyFS(dir, bundle(t, c.settings)); err != nil {
				t.Fatal(err)
			}
			embedded, err := policy.LoadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote(t, startOPA(t, dir), policy.RemoteOptions{}).Evaluate(t.Context(), input(t))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(evaluate(t, embedded, input(t)), got); diff != "" || got.Allow != c.allow || len(got.Violations) != c.violations {
				t.Errorf("%+v %s", got, diff)
			}
		})
	}
}

func TestRealServerWithoutThePolicy(t *testing.T) {
	p := remote(t, startOPA(t), policy.RemoteOptions{})
	if v, err := p.Evaluate(t.Context(), input(t)); err == nil || !strings.Contains(err.Error(), "load the policy") {
		t.Errorf("verdict is %+v, %v", v, err)
	}
}

func TestServerGone(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	p := remote(t, s.URL, policy.RemoteOptions{})
	s.Close()
	if v, err := p.Evaluate(t.Context(), input(t)); err == nil {
		t.Errorf("verdict is %+v", v)
	}
}

const allowed = `{"result": {"allow": true, "violations": [], "onCanaryFailure": "rollback"}}`

func TestRemoteAsks(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/opa/v1/data/kernelgate/sentinelnet" || r.Header.Get("Authorization") != "Bearer secret" ||
			r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(string(body), `{"input":{"manifest":{"baseRevision":"sha256:`) {
			t.Errorf("%s %s %v: %.200s, %v", r.Method, r.URL, r.Header, body, err)
		}
		io.WriteString(w, `{"decision_id": "x", "result": {"onCanaryFailure": "escalate", "allow": false, "violations": [{"rule": "r", "message": "m"}]}}`)
	}))
	defer s.Close()
	v, err := remote(t, s.URL+"/opa/", policy.RemoteOptions{Token: "secret"}).Evaluate(t.Context(), input(t))
	want := upgrade.PolicyVerdict{Violations: []upgrade.Violation{{Rule: "r", Message: "m"}}, OnCanaryFailure: upgrade.CanaryEscalate}
	if diff := cmp.Diff(want, v); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestRemoteAnswersThatDeny(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect was followed")
		io.WriteString(w, allowed)
	}))
	defer elsewhere.Close()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"error":          answer(500, allowed),
		"created":        answer(201, allowed),
		"unauthorized":   answer(401, `{"code": "unauthorized"}`),
		"empty":          answer(200, ""),
		"undefined":      answer(200, "{}"),
		"null":           answer(200, `{"result": null}`),
		"true":           answer(200, `{"result": true}`),
		"missing member": answer(200, `{"result": {"allow": true, "violations": []}}`),
		"unknown member": answer(200, strings.Replace(allowed, `"allow"`, `"x": 1, "allow"`, 1)),
		"other case":     answer(200, strings.Replace(allowed, "allow", "Allow", 1)),
		"twice":          answer(200, strings.Replace(allowed, `"allow"`, `"allow": false, "allow"`, 1)),
		"result twice":   answer(200, strings.Replace(allowed, `"result"`, `"result": {}, "result"`, 1)),
		"two documents":  answer(200, allowed+allowed),
		"cut":            answer(200, allowed[:len(allowed)-1]),
		"HTML":           answer(200, "<html>"),
		"too large":      answer(200, allowed+strings.Repeat(" ", 1<<20)),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"too late":        func(w http.ResponseWriter, r *http.Request) { late(w, r) },
		"connection lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(handler)
			defer s.Close()
			p := remote(t, s.URL, policy.RemoteOptions{Timeout: 300 * time.Millisecond})
			if v, err := p.Evaluate(t.Context(), input(t)); err == nil {
				t.Errorf("verdict is %+v", v)
			}
		})
	}
}

// late answers after the client has given up.
func late(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
	case <-time.After(5 * time.Second):
	}
	io.WriteString(w, allowed)
}

func TestRemoteOverTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, allowed) }))
	defer s.Close()
	if _, err := remote(t, s.URL, policy.RemoteOptions{}).Evaluate(t.Context(), input(t)); err == nil {
		t.Error("an unknown certificate was accepted")
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	p := remote(t, s.URL, policy.RemoteOptions{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	if v, err := p.Evaluate(t.Context(), input(t)); err != nil || !v.Allow {
		t.Errorf("verdict is %+v, %v", v, err)
	}
}

func TestRemoteNames(t *testing.T) {
	const base = "http://127.0.0.1:8181"
	p := remote(t, base, policy.RemoteOptions{})
	if p.Digest() != envelope.DigestOf([]byte(base)) || p.Engine() != "opa at 127.0.0.1:8181" {
		t.Errorf("%s %s", p.Engine(), p.Digest())
	}
	stated := envelope.DigestOf([]byte("policy"))
	p = remote(t, "https://"+strings.Repeat("a", 100)+".example", policy.RemoteOptions{Digest: stated})
	if err := envelope.CheckText("engine", p.Engine(), 80); p.Digest() != stated || err != nil {
		t.Errorf("%s %s %v", p.Engine(), p.Digest(), err)
	}
}

func TestRemoteRefusesAddresses(t *testing.T) {
	for _, base := range []string{"", "127.0.0.1:8181", "ftp://localhost", "http://", "http://u:secret@localhost", "http://localhost/?a=b", "http://localhost/#x", "http://opa.example", "http://10.0.0.1:8181", "http://[::1", "http://a\x7f"} {
		if _, err := policy.Remote(base, policy.RemoteOptions{}); err == nil {
			t.Errorf("%q accepted", base)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("error shows the password: %v", err)
		}
	}
	for _, base := range []string{"http://localhost:1", "http://[::1]:1/x", "https://opa.example"} {
		remote(t, base, policy.RemoteOptions{})
	}
	remote(t, "http://opa.example", policy.RemoteOptions{Plaintext: true})
}
