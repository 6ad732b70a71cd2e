package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/workflow"
)

// maxBatch is the most callers that share one transaction.
const maxBatch = 256

// job is one caller's Update.
type job struct {
	ctx    context.Context
	f      func(workflow.Tx) error
	result chan error
}

// Update runs f in a write transaction. When it returns nil, what f did is on
// disk; otherwise nothing of it is.
func (s *db) Update(ctx context.Context, f func(workflow.Tx) error) error {
	j := job{ctx, f, make(chan error, 1)}
	select {
	case s.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return ErrClosed
	}
	// From here on the writer answers, also to a caller whose context ends:
	// whether it was written must be known.
	select {
	case err := <-j.result:
		return err
	case <-s.done:
		select {
		case err := <-j.result:
			return err
		default:
			return ErrClosed
		}
	}
}

func (s *db) run(ctx context.Context) {
	defer close(s.done)
	defer close(s.toSign)
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-s.queue:
			s.commit(ctx, s.gather(first))
		}
	}
}

// gather takes what waits already. It does not wait for more: while one batch
// is synced to disk the next one gathers by itself.
func (s *db) gather(first job) []job {
	batch := []job{first}
	for len(batch) < maxBatch {
		select {
		case j := <-s.queue:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

var errAway = fmt.Errorf("%w: nothing was written", workflow.ErrStoreUnavailable)

// commit tells every caller of a batch what became of his function.
func (s *db) commit(ctx context.Context, batch []job) {
	results, err := s.persist(ctx, batch)
	if errors.Is(err, workflow.ErrStoreUnavailable) {
		// Who came meanwhile is not to wait for as long again.
		for len(s.queue) > 0 {
			(<-s.queue).result <- errAway
		}
	}
	for i, j := range batch {
		if err != nil {
			j.result <- err
		} else {
			j.result <- results[i]
		}
	}
}

// errApart says that one caller's function has to be undone and the others'
// not, for which the batch is to run again, each in a savepoint.
var errApart = errors.New("a function of the batch failed after it wrote")

// transact runs a batch in one transaction; apart, each caller's function in a
// savepoint. An error of its commit is no answer; of the attempt the outcome is
// to be asked.
func (s *db) transact(ctx context.Context, batch []job, apart bool) (results []error, a attempt, err error) {
	tx, a, err := s.begin(ctx, s.write)
	if err != nil {
		return nil, a, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	head, err := readHead(ctx, tx)
	if err != nil {
		return nil, a, err
	}
	w := &writer{reader: reader{s.statements(ctx), &session{Tx: tx}, s.dialect}, store: s, tail: newTail(head)}
	run := w.together
	if apart {
		run = w.apart
	}
	results = make([]error, len(batch))
	for i, j := range batch {
		if results[i] = j.ctx.Err(); results[i] != nil {
			continue
		}
		if results[i], err = run(j); err != nil {
			return nil, a, err
		}
		// While later events are signed, earlier ones are written.
		if len(w.tail.pending) >= 2*insertRows {
			if err := w.writeEvents(insertRows); err != nil {
				return nil, a, fmt.Errorf("write the log: %w", err)
			}
		}
	}
	if err := w.flush(); err != nil {
		return nil, a, fmt.Errorf("write the log: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return results, a, fmt.Errorf("commit: %w", err)
	}
	return results, a, nil
}

// together runs one caller's function. Nothing has to be undone of one that
// fails before it wrote, as nearly all do that fail.
func (w *writer) together(j job) (result, err error) {
	w.tx.wrote, w.tx.failed = false, false
	result = call(j.f, w)
	switch {
	case result == nil && !w.tx.failed, result != nil && !w.tx.failed && !w.tx.wrote:
		return result, nil
	case w.undone(result), errors.Is(result, signer.ErrBadSignature):
		return nil, result
	}
	return nil, errApart
}

// apart runs one caller's function in a savepoint, so that its failure undoes
// nothing of the others'.
func (w *writer) apart(j job) (result, err error) {
	if err := w.exec("SAVEPOINT one"); err != nil {
		return nil, err
	}
	before := w.tail
	if result = call(j.f, w); result == nil {
		// It also fails where the function passed over an error of the database.
		if result = w.exec("RELEASE SAVEPOINT one"); result == nil {
			return nil, nil
		}
	}
	if w.undone(result) {
		return nil, result
	}
	if err := w.exec("ROLLBACK TO SAVEPOINT one"); err != nil {
		return nil, err
	}
	// Others' events, where this caller's reading had them written, are
	// undone with it and written again.
	w.once = once{}
	w.tail = newTail(before.head)
	w.tail.pending, w.tail.checks = before.pending, before.checks
	return result, w.exec("RELEASE SAVEPOINT one")
}

func (w *writer) exec(statement string) error {
	_, err := w.tx.ExecContext(w.ctx, statement)
	return err
}

// call turns a panic into an error: one bad function must not stop the writer,
// on which everybody waits.
func call(f func(workflow.Tx) error, t workflow.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v", p)
		}
	}()
	return f(t)
}
