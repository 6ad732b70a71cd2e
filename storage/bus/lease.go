package bus

import (
	"context"
	"errors"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// What the bus keeps in the store, as cursors.
const (
	cursorNext   = "bus/next"   // the seq of the event that is published next
	cursorHolder = "bus/holder" // the id of who publishes
	cursorUntil  = "bus/until"  // how long it does, in Unix seconds
	cursorKey    = "bus/key/"   // and a KeyID: one more than the seq of the event that introduces the event key
)

var (
	errNotHeld = errors.New("another gateway publishes")
	errMoved   = errors.New("another gateway publishes at the same time")
)

// heldByOther: somebody else publishes now. A lease that reaches too far was
// written by a clock that has been set back, and does not hold.
func (b *Bus) heldByOther(r workflow.Reader) (bool, error) {
	holder, err := r.Cursor(cursorHolder)
	if err != nil || holder == b.id {
		return false, err
	}
	until, err := r.Cursor(cursorUntil)
	now := b.now()
	return time.Unix(until, 0).After(now) && time.Unix(until, 0).Before(now.Add(2*b.pace.lease)), err
}

// hold takes or extends the lease.
func (b *Bus) hold(tx workflow.Tx) error {
	switch other, err := b.heldByOther(tx); {
	case err != nil:
		return err
	case other:
		return errNotHeld
	}
	return errors.Join(tx.PutCursor(cursorHolder, b.id), tx.PutCursor(cursorUntil, b.now().Add(b.pace.lease).Unix()))
}

// claim holds the lease, writing only where it may be had.
func (b *Bus) claim(ctx context.Context) error {
	err := b.store.View(ctx, func(r workflow.Reader) error {
		other, err := b.heldByOther(r)
		if err == nil && other {
			err = errNotHeld
		}
		return err
	})
	if err != nil {
		return err
	}
	return b.store.Update(ctx, b.hold)
}

// release lets another gateway take over at once.
func (b *Bus) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := b.store.Update(ctx, func(tx workflow.Tx) error {
		holder, err := tx.Cursor(cursorHolder)
		if err != nil || holder != b.id {
			return err
		}
		return tx.PutCursor(cursorUntil, 0)
	})
	if err != nil {
		b.logger.WarnContext(ctx, "the audit bus's lease could not be given up; it ends by itself", "err", err)
	}
}

// introduced is an event key with the seq of the event that introduces it.
type introduced struct {
	key envelope.KeyID
	seq int64
}

// move moves the cursor from one seq to another, if it still stands there and
// the lease is held, and keeps where the event keys in between are introduced.
func (b *Bus) move(ctx context.Context, from, to int64, keys []introduced) error {
	return b.store.Update(ctx, func(tx workflow.Tx) error {
		if err := b.hold(tx); err != nil {
			return err
		}
		at, err := tx.Cursor(cursorNext)
		if err != nil {
			return err
		}
		if at != from {
			return errMoved
		}
		for _, k := range keys {
			if err := tx.PutCursor(cursorKey+string(k.key), k.seq+1); err != nil {
				return err
			}
		}
		return tx.PutCursor(cursorNext, to)
	})
}

// keysBetween are the event keys that the events of [from, to) introduce.
func keysBetween(r workflow.Reader, from, to int64) ([]introduced, error) {
	var keys []introduced
	for from < to {
		events, err := r.Events(from, int(min(to-from, 1000)))
		if err != nil || len(events) == 0 {
			return keys, err
		}
		for _, e := range events {
			if e.Event.Type == auditlog.KeyDelegated {
				keys = append(keys, introduced{e.Event.KeyID, e.Seq})
			}
		}
		from = events[len(events)-1].Seq + 1
	}
	return keys, nil
}
