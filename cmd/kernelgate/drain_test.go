package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// upload begins an upload and returns what ends it.
func upload(t *testing.T, url, token string) (finish func() (int, error)) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "PUT /v1/artifacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\n12345", token)
	must(t, err)
	return func() (int, error) {
		if _, err := conn.Write([]byte("67890")); err != nil {
			return 0, err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
}

// The first signal lets an upload finish; the guard ends after it.
func TestDrain(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "ops", "requestor")
	p, _ := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	guard := guardPID(t, p)
	finish := upload(t, p.url(t), token)
	time.Sleep(100 * time.Millisecond) // the server has read the request's head
	p.signal(syscall.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	if !alive(guard) {
		t.Error("the guard ended before the requests under way")
	}
	if status, err := finish(); err != nil || status != http.StatusOK {
		t.Errorf("an upload under way: %d %v", status, err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	eventually(t, "the guard has ended", func() bool { return !alive(guard) })
	_, c := w.serve(t, token)
	var content strings.Builder
	if err := c.GetArtifact(t.Context(), envelope.DigestOf([]byte("1234567890")), &content); err != nil || content.String() != "1234567890" {
		t.Errorf("the upload is lost: %v", err)
	}
}

func TestSecondSignal(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "ops", "requestor")
	p, _ := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	guard := guardPID(t, p)
	_ = upload(t, p.url(t), token)
	time.Sleep(100 * time.Millisecond)
	p.signal(syscall.SIGINT)
	time.Sleep(300 * time.Millisecond)
	select {
	case <-p.ended:
		t.Fatal("one signal ended it with a request under way")
	default:
	}
	p.signal(syscall.SIGINT)
	began := time.Now()
	p.wait(t)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it ended only after %v", took)
	}
	eventually(t, "the guard has ended", func() bool { return !alive(guard) })
}
