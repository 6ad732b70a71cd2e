// Package client is the Go SDK of the gateway's HTTP API, docs/openapi.yaml.
// It carries signed records and reads what the gateway shows; it trusts the
// gateway with nothing: what it returns is verified with workflow/upgrade.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/failure"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../../docs/openapi.yaml

// maxAnswer bounds an answer, in bytes: a bundle file has at most 16 MiB.
const maxAnswer = 17 << 20

// ErrUnavailable says that the gateway cannot be reached, or stopped in the
// middle of an answer. What was asked may have been done; asking again is harmless.
var ErrUnavailable = errors.New("gateway unavailable")

// Client calls one gateway. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a client for a gateway's base URL. The token may be empty for
// paths that need none. Plain http is refused for any host but this machine,
// since the token would travel in the open. hc nil: a client of its own.
func New(base, token string, hc *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, errors.New("gateway address: it must look like https://gateway.example:8420")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("gateway address %s: use https; plain http is for this machine only", u.Redacted())
	}
	if hc == nil {
		hc = &http.Client{}
	}
	own := *hc
	// A redirect would carry records, and perhaps the token, elsewhere.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: u, token: token, http: &own}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Error is the gateway's problem. Code is a failure class of PROTOCOL section
// 12 or one of the API's codes.
type Error struct {
	Status     int
	Code       string
	Detail     string
	RetryAfter time.Duration // zero where the gateway gives no time
}

// Error is the code and the detail.
func (e *Error) Error() string { return "gateway: " + e.Code + ": " + e.Detail }

// Class is the failure class, or empty where the code is the API's own.
func (e *Error) Class() failure.Class {
	switch e.Code {
	case "bad_request", "unauthenticated", "forbidden", "not_found", "method_not_allowed", "conflict",
		"too_large", "unsupported_media_type", "unavailable", "internal":
		return ""
	}
	return failure.Class(e.Code)
}

// call sends a request and decodes its answer into out, unless out is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body []byte, out any) error {
	data, err := c.bytes(ctx, method, path, query, body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("gateway: its answer to %s %s is not what the API says: %w", method, path, err)
	}
	return nil
}

// bytes sends a request with a JSON body, if any, and reads the whole answer.
func (c *Client) bytes(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	var reader io.Reader
	var header http.Header
	if body != nil {
		reader, header = bytes.NewReader(body), http.Header{"Content-Type": {"application/json"}}
	}
	answer, err := c.do(ctx, method, path, query, header, reader)
	if err != nil {
		return nil, err
	}
	return readAll(answer)
}

// readAll reads and closes an answer of at most maxAnswer bytes.
func readAll(answer *http.Response) (data []byte, err error) {
	data, err = io.ReadAll(&brokenOff{r: io.LimitReader(answer.Body, maxAnswer+1)})
	err = errors.Join(err, answer.Body.Close())
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("gateway: the answer is larger than %d bytes", maxAnswer)
	}
	return data, err
}

// brokenOff gives what fails while a body is read its name.
type brokenOff struct{ r io.Reader }

func (b *brokenOff) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the answer broke off: %w", ErrUnavailable, err)
	}
	return n, err
}

// do sends a request; any answer but 2xx is an *Error. The caller closes the body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Response, error) {
	answer, err := c.send(ctx, method, path, query, header, body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		return nil, errors.Join(problemOf(answer), answer.Body.Close())
	}
	return answer, nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Response, error) {
	target := c.base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	maps.Copy(req.Header, header)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		var wrong *tls.CertificateVerificationError
		if errors.As(err, &wrong) || ctx.Err() != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer, nil
}

func problemOf(answer *http.Response) error {
	e := &Error{Status: answer.StatusCode, Code: "internal", Detail: answer.Status}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	var p Problem
	// A proxy on the way may answer with something else: then the status is all.
	if err == nil && json.Unmarshal(data, &p) == nil && p.Code != "" {
		e.Code = p.Code
		if p.Detail != nil {
			e.Detail = *p.Detail
		}
	}
	return e
}
