package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
)

// limits bound how long a database that does not answer holds who asks it.
type limits struct {
	viewTime    time.Duration // of one View
	attemptTime time.Duration // of one transaction that writes, from begin to its commit's answer
	patience    time.Duration // of the writer with one batch, while the database is away
}

// defaults are longer than the server's own limits (settings), which are to end
// what is merely slow.
var defaults = limits{viewTime: 15 * time.Second, attemptTime: 20 * time.Second, patience: 30 * time.Second}

// The pauses between attempts.
const (
	firstWait = 20 * time.Millisecond
	maxWait   = time.Second
)

// ErrOutcomeUnknown says that the database went away while it was told to
// commit, and has not come back to say whether it did. The same record sent
// again is no error in either case.
var ErrOutcomeUnknown = fmt.Errorf("%w: it is not known whether this was written; send it again", workflow.ErrStoreUnavailable)

// persist runs a batch until it is known whether it is in the database. A
// transaction that was undone by something that passes runs again, on the
// state as it is then. One whose end is not known is never run again before the
// database has said that it was not committed.
func (s *db) persist(ctx context.Context, batch []job) ([]error, error) {
	// Not a caller's context: one who leaves must not undo the others' work. Nor
	// the store's: what is begun when it closes is brought to its end.
	end, apart := time.Now().Add(s.patience), false
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.attemptTime)
		results, a, err := s.transact(limited, batch, apart)
		cancel()
		if !apart && (errors.Is(err, errApart) || aborted(err)) {
			apart = true
			continue
		}
		if err == nil || !s.lost(err) {
			return results, err
		}
		committed, unknown := s.settle(ctx, a, end)
		if unknown != nil {
			return nil, errors.Join(ErrOutcomeUnknown, unknown, err)
		}
		if committed {
			return results, nil
		}
		if !pause(ctx, wait) || time.Now().After(end) {
			return nil, fmt.Errorf("%w: nothing was written: %w", workflow.ErrStoreUnavailable, err)
		}
	}
}

// settle asks for a transaction's outcome until there is an answer.
func (s *db) settle(ctx context.Context, a attempt, end time.Time) (committed bool, err error) {
	if a.xid == "" {
		return false, nil
	}
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.attemptTime)
		committed, err = s.outcome(limited, s.write, a)
		cancel()
		if err == nil || !s.lost(err) || time.Now().After(end) || !pause(ctx, wait) {
			return committed, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
