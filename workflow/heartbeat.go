package workflow

import (
	"context"
	"errors"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

const (
	keyMargin        = 3600 // seconds before its end that an event key is replaced
	defaultHeartbeat = time.Hour
	beatRetry        = 10 // seconds
)

// keepKey replaces the event key in time.
func (e *Engine) keepKey(ctx context.Context) error {
	if e.keyUntil.Sub(e.now()) > keyMargin {
		return nil
	}
	return e.newKey(ctx)
}

// beat introduces a new event key where the log stood still for a heartbeat, so
// that outsiders can tell a quiet log from one that nobody keeps any more. A
// delegation is no empty word: the Kernel's audit key signs it, by the guard's
// clock, and the checkpoint over it is a new one, which witnesses date.
func (e *Engine) beat(ctx context.Context) {
	now, every := e.now(), int64(e.Heartbeat/time.Second)
	// A clock that was put back must not hold the next look off for longer.
	if wait := e.beatAt.Sub(now); wait > 0 && wait <= every {
		return
	}
	e.beatAt = now.Add(beatRetry)
	newest, err := e.newestEvent(ctx)
	if err == nil && now.Sub(newest) >= every {
		if err = e.newKey(ctx); err == nil {
			newest = now
		}
	}
	if err == nil {
		e.beatAt = newest.Add(every)
	}
	e.troubles.beat.report(ctx, e, err)
}

func (e *Engine) newestEvent(ctx context.Context) (newest envelope.Time, err error) {
	err = e.Store.View(ctx, func(r Reader) error {
		size, err := r.LogSize()
		if err != nil {
			return err
		}
		events, err := r.Events(size-1, 1)
		if err == nil && len(events) == 0 {
			err = errors.New("the log has no event")
		}
		if err != nil {
			return err
		}
		newest = events[0].Event.Time
		return nil
	})
	return newest, err
}

func (e *Engine) newKey(ctx context.Context) error {
	var kernelID envelope.ID
	err := e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err == nil {
			kernelID = regs.Last().KernelID()
		}
		return err
	})
	if err != nil {
		return err
	}
	return e.delegate(ctx, kernelID, nil)
}
