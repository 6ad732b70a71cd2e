package workflow

import (
	"context"
	"fmt"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// An engine whose log is not the one that the guard sealed, or that witnesses
// saw, stops: what it would add is a fork. It takes no record and no step until
// the log is right again, and finds the same out after a restart.

const (
	compareEvery = 60 // seconds between two looks at how far the guard has sealed
	compareRetry = 5  // seconds, while it is stopped
)

// standstill is why the engine stopped; nil while it works.
func (e *Engine) standstill() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.halted
}

func (e *Engine) halt(ctx context.Context, cause error) {
	e.mu.Lock()
	before := e.halted
	if e.forked && before != nil {
		cause = before // no later look mends that
	}
	e.halted = cause
	e.mu.Unlock()
	switch {
	case before == nil && cause != nil:
		e.Logger.ErrorContext(ctx, "the gateway stops work: its log is not the one that was sealed; reading goes on", "err", cause)
	case before != nil && cause == nil:
		e.Logger.InfoContext(ctx, "the gateway works again: its log is the one that was sealed")
	}
}

// Ready says why the engine takes no records; nil where it does.
func (e *Engine) Ready() error {
	if err := e.standstill(); err != nil {
		return err
	}
	e.keyMu.RLock()
	defer e.keyMu.RUnlock()
	if e.keyUntil.Before(e.now()) {
		return fmt.Errorf("%w: the log has no event key yet", ErrGuardUnavailable)
	}
	return nil
}

// compare stops the engine where the guard has sealed more than the log has:
// the database was restored from a backup, or another one is in use. Before
// the first time that the guard has answered nothing is done.
func (e *Engine) compare(ctx context.Context) error {
	now := e.now()
	if d := now.Sub(e.comparedAt); d >= 0 && d < compareEvery {
		return e.standstill()
	}
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	status, err := e.Guard.Status(call) // before the log is measured, which only grows
	if err == nil {
		err = e.requireSealed(ctx, status.CheckpointSize)
	}
	switch {
	case failure.ClassOf(err) == failure.AuditFork:
		e.comparedAt = now.Add(compareRetry - compareEvery)
		e.halt(ctx, err)
	case err == nil:
		e.comparedAt = now
		e.halt(ctx, nil)
	case e.comparedAt == (envelope.Time{}):
		return err
	default: // that the guard is away is said elsewhere
		e.comparedAt = now.Add(compareRetry - compareEvery)
	}
	return e.standstill()
}

func (e *Engine) requireSealed(ctx context.Context, sealed int64) error {
	return e.Store.View(ctx, func(r Reader) error {
		size, err := r.LogSize()
		if err == nil && size < sealed {
			err = failure.New(failure.AuditFork, "the guard has sealed %d events, and the log of this database has %d: the database is an older one, from a backup perhaps; stop the gateway and restore the newest", sealed, size)
		}
		return err
	})
}

// fork stops the engine for good: the log does not continue what was sealed or
// seen, and no later look can mend that.
func (e *Engine) fork(ctx context.Context, cause error) {
	e.halt(ctx, cause)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forked = true
}

// complaint is a trouble that lasts: it is logged when it begins, every half
// minute, and when it ends.
type complaint struct {
	what        string
	since, said time.Time
}

const complainEvery = 30 * time.Second

func (c *complaint) report(ctx context.Context, e *Engine, err error) {
	now := time.Now()
	switch {
	case err == nil && c.since.IsZero() || ctx.Err() != nil:
	case err == nil:
		e.Logger.InfoContext(ctx, c.what+": that is over", "seconds", int64(now.Sub(c.since).Seconds()))
		c.since, c.said = time.Time{}, time.Time{}
	case c.since.IsZero():
		e.Logger.WarnContext(ctx, c.what+"; it is tried again", "err", err)
		c.since, c.said = now, now
	case now.Sub(c.said) >= complainEvery:
		e.Logger.WarnContext(ctx, c.what+"; it is tried again", "err", err, "seconds", int64(now.Sub(c.since).Seconds()))
		c.said = now
	}
}
