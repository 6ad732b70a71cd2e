package api

import (
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

// One holder cannot take everybody's streams, and gets places back.
func TestStreamsOfOneHolder(t *testing.T) {
	of := func(token Token) echo.Context {
		c := echo.New().NewContext(httptest.NewRequest("GET", "/v1/events", nil), httptest.NewRecorder())
		c.Set(tokenKey, token)
		return c
	}
	mallory, alice := of(Token{ID: "mallory", Role: RoleAuditor}), of(Token{ID: "alice", Role: RoleAuditor})
	s := &server{places: newPlaces()}
	var leave func()
	for range maxStreamsEach {
		var err error
		if leave, err = s.places.take(mallory); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.places.take(mallory); err == nil {
		t.Error("one more than a holder may have")
	}
	out, err := s.places.take(alice)
	if err != nil {
		t.Fatalf("another holder: %v", err)
	}
	out()
	leave()
	if _, err := s.places.take(mallory); err != nil {
		t.Errorf("after one left: %v", err)
	}
	if _, known := s.places.taken["alice"]; known {
		t.Error("a holder without streams is still counted")
	}
}
