package storage

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

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
func (s *SQLite) Update(ctx context.Context, f func(workflow.Tx) error) error {
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

func (s *SQLite) run(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-s.queue:
			s.commit(s.gather(first))
		}
	}
}

// gather takes what waits already. It does not wait for more: while one batch
// is synced to disk the next one gathers by itself.
func (s *SQLite) gather(first job) []job {
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

func (s *SQLite) commit(batch []job) {
	results := make([]error, len(batch))
	if err := s.transact(batch, results); err != nil {
		for i := range results {
			results[i] = err
		}
	}
	for i, j := range batch {
		j.result <- results[i]
	}
}

func (s *SQLite) transact(batch []job, results []error) error {
	// Not a caller's context: one who leaves must not undo the others' work.
	ctx := context.Background()
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	head, err := readHead(ctx, tx)
	if err != nil {
		return err
	}
	w := &writer{reader: reader{ctx, tx}, store: s, tail: tail{head: head, hashes: map[int64]tlog.Hash{}}}
	for i, j := range batch {
		if results[i] = j.ctx.Err(); results[i] != nil {
			continue
		}
		if results[i], err = w.runOne(j); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// runOne runs one caller's function in a savepoint, so that its failure undoes
// nothing of the others'.
func (w *writer) runOne(j job) (result, err error) {
	if _, err := w.tx.ExecContext(w.ctx, "SAVEPOINT one"); err != nil {
		return nil, err
	}
	before := w.tail
	if result = call(j.f, w); result != nil {
		if _, err := w.tx.ExecContext(w.ctx, "ROLLBACK TO one"); err != nil {
			return result, err
		}
		// Others' events, where this caller's reading had them written, are
		// undone with it and written again.
		w.tail = tail{head: before.head, pending: before.pending, hashes: map[int64]tlog.Hash{}}
	}
	_, err = w.tx.ExecContext(w.ctx, "RELEASE one")
	return result, err
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
