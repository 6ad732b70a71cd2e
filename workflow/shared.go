package workflow

import (
	"context"
	"sync/atomic"
)

// shared is a job that many callers need and that runs once at a time. Who asks
// while it runs waits for the next run, which begins after all that the caller
// had done by then, and serves everybody who waits. So a slow device is never
// asked twice at once, and is asked again as soon as it has answered.
type shared struct {
	running chan struct{} // holds one while the job runs
	begun   atomic.Int64  // runs

	// Of the newest run that came to a verdict; its holder's alone.
	done int64
	err  error
}

func newShared() *shared { return &shared{running: make(chan struct{}, 1)} }

// do returns what a run that began after the call came to.
func (s *shared) do(ctx context.Context, job func(context.Context) error) error {
	asked := s.begun.Load()
	select {
	case s.running <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.running }()
	if s.done > asked {
		return s.err
	}
	run := s.begun.Add(1)
	err := job(ctx)
	if ctx.Err() == nil { // otherwise the error is this caller's alone
		s.done, s.err = run, err
	}
	return err
}
