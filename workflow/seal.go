package workflow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

const (
	sealEvery = 50 * time.Millisecond // that nobody waits for; who waits is served at once
	sealLook  = time.Second           // how often the log is looked at for events of other gateways
	sealRetry = time.Second
)

// keepSealed keeps the log sealed, beside the work. Its pace is the device's:
// the next checkpoint is asked for once the last one is there and the log grew.
func (e *Engine) keepSealed(ctx context.Context) {
	look := time.NewTicker(sealLook)
	defer look.Stop()
	for {
		next := time.Now().Add(sealEvery)
		err := e.standstill()
		if err == nil {
			err = e.seal(ctx)
			e.troubles.seal.report(ctx, e, err)
		}
		if err != nil {
			next = time.Now().Add(sealRetry)
		}
		if !sleep(ctx, time.Until(next)) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-e.grown:
		case <-look.C:
		}
	}
}

// seal has the guard sign a checkpoint over all that was logged before the
// call, where there is none.
func (e *Engine) seal(ctx context.Context) error { return e.sealing.do(ctx, e.sealNow) }

// sealNow seals. The last checkpoint that the guard signed may be newer than the
// last that was stored, after a crash or by another engine; then the guard says
// how far it is.
func (e *Engine) sealNow(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	err := e.sealFrom(call, -1)
	for last := int64(-1); failure.ClassOf(err) != "" || errors.Is(err, errBehind); {
		status, statusErr := e.Guard.Status(call)
		if statusErr != nil {
			return errors.Join(err, statusErr)
		}
		if status.CheckpointSize == last { // no other engine was faster in between
			if failure.ClassOf(err) == failure.AuditFork {
				e.fork(ctx, err)
			}
			return err
		}
		last = status.CheckpointSize
		err = e.sealFrom(call, last)
	}
	return err
}

// errBehind: the guard's memory ends before what it has sealed.
var errBehind = fmt.Errorf("%w: its memory is an old copy, and must be rebuilt from the log", ErrGuardUnavailable)

// sealFrom seals what follows the checkpoint of a size, or, where that is
// negative, the last one that was stored.
func (e *Engine) sealFrom(ctx context.Context, from int64) error {
	var size, sealed int64
	var root [32]byte
	var proof [][]byte
	err := e.Store.View(ctx, func(r Reader) error {
		var err error
		if size, err = r.LogSize(); err != nil {
			return err
		}
		if _, sealed, err = r.Checkpoint(); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if sealed >= size {
			return nil
		}
		if from < 0 {
			from = sealed
		}
		if from < sealed {
			return fmt.Errorf("%w: it ends at a log of %d events, behind its own checkpoint of %d", errBehind, from, sealed)
		}
		if from > size {
			return failure.New(failure.AuditFork, "the guard has sealed %d events, where this log has %d: the database is an older one; restore the newest", from, size)
		}
		if root, err = r.TreeRoot(size); err != nil || from == 0 {
			return err
		}
		proof, err = r.ConsistencyProof(from, size)
		return err
	})
	if err != nil || sealed >= size {
		return err
	}
	note, err := e.Guard.SignCheckpoint(ctx, size, root, proof)
	if err != nil {
		return err
	}
	if err := e.Store.Update(ctx, func(tx Tx) error { return tx.PutCheckpoint(note, size) }); err != nil {
		return err
	}
	signal(e.sealed)
	return nil
}

// proveEvent is the sealed proof of one event, which it waits for.
func (e *Engine) proveEvent(ctx context.Context, ev StoredEvent) (LogProof, error) {
	p, err := e.sealedProof(ctx, ev)
	if !errors.Is(err, ErrNotFound) {
		return p, err
	}
	if err := e.seal(ctx); err != nil {
		return LogProof{}, err
	}
	return e.sealedProof(ctx, ev)
}

// sealedProof is ErrNotFound where no checkpoint covers the event yet.
func (e *Engine) sealedProof(ctx context.Context, ev StoredEvent) (LogProof, error) {
	var p LogProof
	err := e.Store.View(ctx, func(r Reader) error {
		note, size, err := r.Checkpoint()
		if err == nil && size <= ev.Seq {
			err = fmt.Errorf("a checkpoint over event %d: %w", ev.Seq, ErrNotFound)
		}
		if err != nil {
			return err
		}
		p.Checkpoint = note
		p.Entry = auditlog.Entry{Index: ev.Seq, Leaf: ev.Leaf}
		p.Entry.Proof, err = r.InclusionProof(ev.Seq, size)
		return err
	})
	return p, err
}

// signal says that something is there to be looked at; once is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
