package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// serve starts a server whose handler waits for release, sends one request,
// and ends the server's context while that request is under way.
func serve(t *testing.T, drain time.Duration, release <-chan struct{}) (served, answered chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "whole")
	})
	ctx, cancel := context.WithCancel(t.Context())
	served, answered = make(chan error, 1), make(chan error, 1)
	go func() { served <- Serve(ctx, l, handler, drain) }()
	go func() {
		res, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil && string(body) != "whole" {
				err = errors.New("got " + string(body))
			}
		}
		answered <- err
	}()
	<-entered
	cancel()
	return served, answered
}

func TestDrain(t *testing.T) {
	release := make(chan struct{})
	served, answered := serve(t, time.Minute, release)
	select {
	case err := <-served:
		t.Fatalf("ended with a request under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestDrainEnds(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	served, answered := serve(t, 50*time.Millisecond, release)
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("serve: %v, want that requests were cut off", err)
	}
	if err := <-answered; err == nil {
		t.Error("a request that was cut off looked whole")
	}
}
