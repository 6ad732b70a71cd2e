package guard

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Client is a guard in another process. Its errors are a failure.Error for
// the guard's refusals, and wrap workflow.ErrGuardUnavailable for all else.
type Client struct {
	base string
	http *http.Client
}

var _ workflow.Guard = (*Client)(nil)

// idleConns are kept open, so that a call seldom has to connect first.
const idleConns = 16

// NewClient calls the guard that serves socketPath. It connects when called.
func NewClient(socketPath string) *Client {
	var d net.Dialer
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socketPath)
	}
	return newClient("http://guard", &http.Transport{DialContext: dial})
}

func newClient(base string, t *http.Transport) *Client {
	t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.DisableCompression = idleConns, time.Minute, true
	t.WriteBufferSize = 64 << 10 // a request is one write, which wakes the guard once
	return &Client{base, &http.Client{Transport: t}}
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) call(ctx context.Context, path string, q, a any) error {
	data, err := json.Marshal(q)
	if err != nil {
		return failure.As(failure.FieldInvalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	return c.send(ctx, path, bytes.NewReader(data), a)
}

func (c *Client) send(ctx context.Context, path string, q io.Reader, a any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, q)
	if err != nil {
		return unavailable(err)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", workflow.ErrGuardUnavailable, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return fmt.Errorf("%w: %w", workflow.ErrGuardUnavailable, err)
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, a, json.RejectUnknownMembers(true)); err != nil {
			return fmt.Errorf("%w: its answer is malformed: %w", workflow.ErrGuardUnavailable, err)
		}
		return nil
	}
	var no refusal
	if err := json.Unmarshal(body, &no); err != nil {
		return fmt.Errorf("%w: it answered with status %d", workflow.ErrGuardUnavailable, response.StatusCode)
	}
	if no.Class == "" {
		return fmt.Errorf("%w: %s", workflow.ErrGuardUnavailable, strings.TrimPrefix(no.Detail, workflow.ErrGuardUnavailable.Error()+": "))
	}
	return &failure.Error{Class: no.Class, Detail: no.Detail}
}

func (c *Client) envelope(ctx context.Context, path string, q any) (envelope.Envelope, error) {
	var a envelopeBody
	if err := c.call(ctx, path, q, &a); err != nil {
		return envelope.Envelope{}, err
	}
	return a.Envelope, nil
}

// Status implements workflow.Guard, as do the methods below.
func (c *Client) Status(ctx context.Context) (workflow.GuardStatus, error) {
	var a workflow.GuardStatus
	err := c.call(ctx, pathStatus, empty{}, &a)
	return a, err
}

// AcceptRegistry hands on the next registry document.
func (c *Client) AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	return c.call(ctx, pathRegistry, registryRequest{entry}, &empty{})
}

// Suspend hands on a suspension.
func (c *Client) Suspend(ctx context.Context, env envelope.Envelope) error {
	return c.call(ctx, pathSuspend, envelopeBody{env}, &empty{})
}

// DelegateEventKey asks for an event key's delegation.
func (c *Client) DelegateEventKey(ctx context.Context, publicKey []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error) {
	return c.envelope(ctx, pathDelegate, delegateRequest{publicKey, instance, notBefore, notAfter})
}

// SignCheckpoint asks for a checkpoint.
func (c *Client) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (string, error) {
	var a checkpointAnswer
	err := c.call(ctx, pathCheckpoint, checkpointRequest{size, root[:], consistency}, &a)
	return a.Note, err
}

// SignRecord asks for an AppliedUpgradeRecord.
func (c *Client) SignRecord(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	return c.envelope(ctx, pathRecord, bundleRequest{b, proof})
}

// SignRatification asks for a Ratification.
func (c *Client) SignRatification(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	return c.envelope(ctx, pathRatify, bundleRequest{b, proof})
}

// SignRollback asks for the Kernel's own rollback manifest.
func (c *Client) SignRollback(ctx context.Context, m upgrade.Manifest, proof *workflow.LogProof) (envelope.Envelope, error) {
	return c.envelope(ctx, pathRollback, rollbackRequest{m, proof})
}

// Outcome hands on a sealed outcome.
func (c *Client) Outcome(ctx context.Context, proof workflow.LogProof) error {
	return c.call(ctx, pathOutcome, proofRequest{proof}, &empty{})
}

// Probe asks for a test signature with each key.
func (c *Client) Probe(ctx context.Context) error { return c.call(ctx, pathProbe, empty{}, &empty{}) }
