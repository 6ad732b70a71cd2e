package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Times of a connection. Uploads and downloads move their own deadlines on
// for as long as bytes flow.
const (
	headerTime  = 5 * time.Second
	requestTime = 30 * time.Second
	answerTime  = 2 * time.Minute
	idleTime    = 2 * time.Minute
	maxHeader   = 16 << 10 // bytes
)

// Serve answers on l until ctx ends. Then it takes no new connection and lets
// requests under way finish, for at most drain; what is left is cut off and
// reported as an error.
func Serve(ctx context.Context, l net.Listener, h http.Handler, drain time.Duration) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), drainKey{}, ctx.Done())
		},
	}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		err := server.Shutdown(end)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		drained <- err
	})
	err := server.Serve(l)
	if stop() {
		return err // the listener failed by itself
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, <-drained)
}

// drainKey finds, in a request's context, the channel that closes when the
// gateway drains: a stream ends then, since it would never end by itself.
type drainKey struct{}

// draining never closes where Serve does not run, in tests of handlers.
func draining(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return done
}
