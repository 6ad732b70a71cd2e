package workflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

const (
	tick         = 50 * time.Millisecond // how often due rows are looked for
	dueLimit     = 64
	maxBackoff   = 30 // seconds
	callDeadline = 30 * time.Second
	guardCalls   = 4                // steps that ask the guard at one time
	claimSeconds = 60               // that a claim on a row holds
	renewEvery   = 20 * time.Second // while a step runs
	healEvery    = 60               // seconds between two looks at what the guard knows
	healRetry    = 5                // seconds after a look that failed
)

// Run works until ctx ends: it keeps an event key, seals what was logged and
// takes up every upgrade that is due, those of an earlier run included. Claims
// that an earlier run of this instance left behind are given up first.
func (e *Engine) Run(ctx context.Context) error {
	var steps sync.WaitGroup
	defer e.releaseClaims(context.WithoutCancel(ctx))
	defer steps.Wait()
	e.releaseClaims(ctx)
	steps.Go(func() { e.keepSealed(ctx) })
	if e.Witnesses != nil {
		steps.Go(func() { e.keepWitnessed(ctx) })
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		err := e.round(ctx, &steps)
		e.troubles.round.report(ctx, e, err)
		if err != nil && !sleep(ctx, time.Second) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-e.wake:
		}
	}
}

func (e *Engine) releaseClaims(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	if err := e.Store.Update(ctx, func(tx Tx) error { return tx.Release(e.Instance) }); err != nil {
		e.Logger.WarnContext(ctx, "claims could not be given up; they end by themselves", "err", err)
	}
}

func (e *Engine) round(ctx context.Context, steps *sync.WaitGroup) error {
	if err := e.compare(ctx); err != nil {
		return err
	}
	if err := e.keepKey(ctx); err != nil {
		return err
	}
	e.beat(ctx)
	healed := e.healedAt
	if err := e.heal(ctx); err != nil || e.healedAt != healed { // it has looked
		e.troubles.heal.report(ctx, e, err)
	}
	due, err := e.claim(ctx)
	for _, u := range due {
		if e.take(u) {
			steps.Go(func() {
				for more := true; more; u, more = e.release(u.ID) {
					e.work(ctx, u)
				}
				e.poke() // its next step may be due at once
			})
		}
	}
	if len(due) == dueLimit {
		e.poke() // there may be more
	}
	return err
}

// claim is the due rows that are this engine's now. It writes only where a
// look says that there are some.
func (e *Engine) claim(ctx context.Context) (due []Upgrade, err error) {
	now := e.now()
	until := now.Add(claimSeconds)
	err = e.Store.View(ctx, func(r Reader) (err error) {
		due, err = r.Due(now, until, dueLimit)
		return err
	})
	if err != nil || len(due) == 0 {
		return nil, err
	}
	err = e.Store.Update(ctx, func(tx Tx) (err error) {
		due, err = tx.Claim(now, until, e.Instance, dueLimit)
		return err
	})
	return due, err
}

// work does one step, and keeps the claim for as long as it takes.
func (e *Engine) work(ctx context.Context, u Upgrade) {
	held, done := context.WithCancel(ctx)
	defer done()
	go func() {
		for sleep(held, renewEvery) {
			err := e.Store.Update(held, func(tx Tx) error { return tx.Renew(u.ID, e.Instance, e.now().Add(claimSeconds)) })
			if err != nil && !errors.Is(err, ErrNotFound) && held.Err() == nil {
				e.Logger.WarnContext(ctx, "a claim could not be renewed", "upgrade", u.ID, "err", err)
			}
		}
	}()
	err := e.step(ctx, u)
	if err == nil {
		e.forget(u.ID)
	} else if ctx.Err() == nil {
		e.later(ctx, u.ID, err)
	}
}

// take says whether the caller is to work on a row. Where a step is on its last
// lines, having written the row that was claimed again since, it goes on itself.
func (e *Engine) take(u Upgrade) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, busy := e.inFlight[u.ID]; busy {
		e.inFlight[u.ID] = &u
		return false
	}
	e.inFlight[u.ID] = nil
	return true
}

// release ends a step, or hands out the row as it was claimed meanwhile.
func (e *Engine) release(id envelope.UUID) (again Upgrade, more bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if next := e.inFlight[id]; next != nil {
		e.inFlight[id] = nil
		return *next, true
	}
	delete(e.inFlight, id)
	return Upgrade{}, false
}

// forget starts the back-off of an upgrade anew.
func (e *Engine) forget(id envelope.UUID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.attempts, id)
}

// later puts an upgrade off: 1, 2, 4 ... 30 seconds, without end.
func (e *Engine) later(ctx context.Context, id envelope.UUID, cause error) {
	e.mu.Lock()
	n := e.attempts[id]
	e.attempts[id] = n + 1
	e.mu.Unlock()
	wait := int64(maxBackoff)
	if n < 5 {
		wait = min(maxBackoff, int64(1)<<n)
	}
	e.Logger.WarnContext(ctx, "an upgrade could not go on; it is taken up again", "upgrade", id, "seconds", wait, "err", cause)
	err := e.update(ctx, func(tx Tx) error {
		u, err := tx.Upgrade(id)
		if err != nil {
			return err
		}
		next := e.now().Add(wait)
		u.NextAt = &next
		return tx.PutUpgrade(u)
	})
	if err != nil {
		e.Logger.ErrorContext(ctx, "an upgrade could not be put off", "upgrade", id, "err", err)
		sleep(ctx, time.Second)
	}
}

// ask asks the guard in a step. The guard does one thing at a time, and a
// checkpoint, for which many steps wait, must not stand behind all of them.
func (e *Engine) ask(ctx context.Context, call func(context.Context) error) error {
	select {
	case e.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.asking }()
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	return call(ctx)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
