package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// against is a client of a gateway that behaves as h does.
func against(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := New(server.URL+"/below", "kgt_secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRequests(t *testing.T) {
	var seen *http.Request
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		_, _ = io.WriteString(w, `{"upgrades":[]}`)
	})
	target, cursor, limit := "web", "a b&c", int32(9)
	if _, err := c.Upgrades(t.Context(), ListUpgradesParams{Target: &target, Cursor: &cursor, Limit: &limit}); err != nil {
		t.Fatal(err)
	}
	if got := seen.URL.String(); got != "/below/v1/upgrades?cursor=a+b%26c&limit=9&target=web" {
		t.Errorf("asked for %s", got)
	}
	if got := seen.Header.Get("Authorization"); got != "Bearer kgt_secret" {
		t.Errorf("authorised by %q", got)
	}
}

// A gateway that lies about an artifact is caught by the digest.
func TestLyingGateway(t *testing.T) {
	other := envelope.DigestOf([]byte("other"))
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "not what was asked for")
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"digest":"`+other.String()+`","size":4}`)
	})
	if _, err := c.PutArtifact(t.Context(), strings.NewReader("mine")); failure.ClassOf(err) != failure.ArtifactMismatch {
		t.Errorf("upload: %v", err)
	}
	if err := c.GetArtifact(t.Context(), other, io.Discard); failure.ClassOf(err) != failure.ArtifactMismatch {
		t.Errorf("download: %v", err)
	}
}

func TestTruncatedDownload(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "short")
	})
	if err := c.GetArtifact(t.Context(), envelope.DigestOf(nil), io.Discard); err == nil {
		t.Error("a download that broke off was taken for whole")
	}
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		name, body, code string
		status           int
		class            failure.Class
	}{
		{"failure class", `{"type":"about:blank","title":"x","status":422,"code":"quorum_not_met","detail":"two of three"}`, "quorum_not_met", 422, failure.QuorumNotMet},
		{"API code", `{"type":"about:blank","title":"x","status":503,"code":"unavailable"}`, "unavailable", 503, ""},
		{"proxy", "<html>bad gateway", "internal", 502, ""},
		{"redirect", "", "internal", 302, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			c := against(t, func(w http.ResponseWriter, _ *http.Request) {
				calls++
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := c.Checkpoint(t.Context())
			var problem *Error
			if !errors.As(err, &problem) {
				t.Fatalf("got %v", err)
			}
			if problem.Status != tt.status || problem.Code != tt.code || problem.Class() != tt.class || problem.RetryAfter != 7*time.Second {
				t.Errorf("got %+v, class %q", problem, problem.Class())
			}
			if calls != 1 {
				t.Errorf("%d requests; a redirect was followed", calls)
			}
		})
	}
}

func TestEndlessAnswer(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	if _, err := c.Bundle(t.Context(), "0190a5e0-0000-7000-8000-000000000001"); err == nil {
		t.Error("an answer without end was accepted")
	}
}
