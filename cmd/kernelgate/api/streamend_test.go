package api

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
)

// A stream does not outlive the right to read it.
func TestAStreamEndsWithItsToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.json")
	text, err := CreateToken(path, "ana", string(RoleAuditor))
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &server{Config: Config{Tokens: tokens, Logger: slog.New(slog.DiscardHandler)}}
		req := httptest.NewRequest(http.MethodGet, "/v1/events", nil)
		req.Header.Set("Authorization", "Bearer "+text)
		send := s.startStream(echo.New().NewContext(req, httptest.NewRecorder()))
		time.Sleep(heartbeat)
		if err := send(": alive"); err != nil {
			t.Fatalf("a stream of somebody who may read it: %v", err)
		}
		if err := os.WriteFile(path, []byte("[]"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(heartbeat)
		if err := send("event"); err == nil {
			t.Error("a stream goes on whose token is gone")
		}
	})
}
