package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/net/netutil"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	// callTimeout bounds one call; the device's own watchdog is shorter.
	callTimeout = 60 * time.Second
	// maxConns bounds connections, and with them the files and the memory that
	// strangers can take: over TLS they connect before they are asked who they are.
	maxConns = 512
)

// Listen makes the guard's socket, for its own user only. A socket that a
// dead guard left behind is replaced; the memory's lock keeps a live one safe,
// so open the guard first.
func Listen(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("guard: %s exists and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The mask makes the socket private from its first moment on.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	return l, err
}

// Serve answers calls on the listener until ctx ends, and then lets those
// under way finish.
func Serve(ctx context.Context, g workflow.Guard, l net.Listener) error {
	s := &http.Server{
		Handler: Handler(g), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: callTimeout, WriteTimeout: 2 * callTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		done <- s.Shutdown(end)
	})
	err := s.Serve(netutil.LimitListener(l, maxConns))
	if stop() {
		return err // the listener failed by itself
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, <-done)
}

// Handler is the guard's calls over HTTP.
func Handler(g workflow.Guard) http.Handler {
	mux := &calls{http.NewServeMux(), newLimiter(), slog.New(slog.DiscardHandler)}
	if kernel, ok := g.(*Guard); ok {
		if kernel.config.Log != nil {
			mux.log = kernel.config.Log
		}
		mux.HandleFunc("POST "+pathRebuild, func(w http.ResponseWriter, r *http.Request) {
			err := kernel.serveRebuild(w, r)
			mux.tell(r.Context(), pathRebuild, nil, err)
			reply(w, empty{}, err)
		})
	}
	// Whether it lives is answered also while it is busy: who is not told kills it.
	handle(&calls{mux.ServeMux, newLimiter(), mux.log}, pathStatus, func(ctx context.Context, _ empty) (workflow.GuardStatus, error) { return g.Status(ctx) })
	handle(mux, pathProbe, func(ctx context.Context, _ empty) (empty, error) { return empty{}, g.Probe(ctx) })
	handle(mux, pathRegistry, func(ctx context.Context, r registryRequest) (empty, error) {
		return empty{}, g.AcceptRegistry(ctx, r.Entry)
	})
	handle(mux, pathSuspend, func(ctx context.Context, r envelopeBody) (empty, error) {
		return empty{}, g.Suspend(ctx, r.Envelope)
	})
	handle(mux, pathDelegate, func(ctx context.Context, r delegateRequest) (envelopeBody, error) {
		env, err := g.DelegateEventKey(ctx, r.PublicKey, r.Instance, r.NotBefore, r.NotAfter)
		return envelopeBody{env}, err
	})
	handle(mux, pathCheckpoint, func(ctx context.Context, r checkpointRequest) (checkpointAnswer, error) {
		root, err := r.root()
		if err != nil {
			return checkpointAnswer{}, err
		}
		note, err := g.SignCheckpoint(ctx, r.Size, root, r.Consistency)
		return checkpointAnswer{note}, err
	})
	handle(mux, pathRecord, bundleCall(g.SignRecord))
	handle(mux, pathRatify, bundleCall(g.SignRatification))
	handle(mux, pathRollback, func(ctx context.Context, r rollbackRequest) (envelopeBody, error) {
		env, err := g.SignRollback(ctx, r.Manifest, r.Proof)
		return envelopeBody{env}, err
	})
	handle(mux, pathOutcome, func(ctx context.Context, r proofRequest) (empty, error) { return empty{}, g.Outcome(ctx, r.Proof) })
	return mux
}

func bundleCall(sign func(context.Context, upgrade.QuorumBundle, workflow.LogProof) (envelope.Envelope, error)) func(context.Context, bundleRequest) (envelopeBody, error) {
	return func(ctx context.Context, r bundleRequest) (envelopeBody, error) {
		env, err := sign(ctx, r.Bundle, r.Proof)
		return envelopeBody{env}, err
	}
}

// calls are the paths, the places for their callers, and the guard's own log.
type calls struct {
	*http.ServeMux
	limit *limiter
	log   *slog.Logger
}

// tell writes a line about a signature or a refusal. It has no word that the
// caller chose.
func (c *calls) tell(ctx context.Context, path string, answer any, err error) {
	if class := failure.ClassOf(err); class != "" {
		c.log.WarnContext(ctx, "refused", "call", path, "class", class)
		return
	}
	if err != nil {
		return // no verdict: it is asked again
	}
	switch a := answer.(type) {
	case envelopeBody:
		c.log.InfoContext(ctx, "signed", "call", path, "digest", a.Envelope.PayloadDigest().String())
	case checkpointAnswer:
		c.log.DebugContext(ctx, "signed", "call", path)
	}
}

// handle decodes strictly, calls, and answers. On an error nothing but the
// refusal is written.
func handle[Q, A any](mux *calls, path string, call func(context.Context, Q) (A, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		leave, ok := mux.limit.enter(r)
		if !ok {
			w.Header().Set("Retry-After", "1")
			reply(w, empty{}, errBusy)
			return
		}
		defer leave()
		var q Q
		if err := decode(http.MaxBytesReader(w, r.Body, bodyLimit(path)), r.ContentLength, &q); err != nil {
			status := http.StatusBadRequest
			if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
				status = http.StatusRequestEntityTooLarge
			}
			err = failure.As(failure.PayloadMalformed, err)
			mux.tell(r.Context(), path, nil, err)
			answer(w, status, refusal{failure.ClassOf(err), failure.DetailOf(err)})
			return
		}
		// A caller who goes away does not stop a signature half-way: what is
		// signed is remembered, and asked for again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), callTimeout)
		defer cancel()
		a, err := call(ctx, q)
		mux.tell(ctx, path, a, err)
		reply(w, a, err)
	})
}

// decode reads a request strictly. length is as its sender tells it, -1 for unknown.
func decode(r io.Reader, length int64, q any) error {
	var body bytes.Buffer
	body.Grow(int(max(0, min(length, largeBody))) + bytes.MinRead)
	if _, err := body.ReadFrom(r); err != nil {
		return err
	}
	if err := checkValues(body.Bytes()); err != nil {
		return err
	}
	if err := json.Unmarshal(body.Bytes(), q, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	if c, ok := q.(interface{ check(body []byte) error }); ok {
		return c.check(body.Bytes())
	}
	return nil
}

var errBusy = fmt.Errorf("%w: too many calls wait for it; ask again in a second", workflow.ErrGuardUnavailable)

// reply writes the answer, or the refusal that err is.
func reply(w http.ResponseWriter, a any, err error) {
	switch {
	case err == nil:
		answer(w, http.StatusOK, a)
	case failure.ClassOf(err) != "":
		answer(w, http.StatusUnprocessableEntity, refusal{failure.ClassOf(err), failure.DetailOf(err)})
	default:
		answer(w, http.StatusServiceUnavailable, refusal{"", err.Error()})
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusServiceUnavailable, []byte(`{"class":"","detail":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // the caller is gone; it asks again
}
