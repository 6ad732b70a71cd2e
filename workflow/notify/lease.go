package notify

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
)

// Of several gateways on one store one sends to a receiver: the one that has
// the receiver's lease. A lease is a row beside the receiver's place in the
// log, whose number is until when it holds, in Unix seconds, and who has it.

const (
	leaseSeconds = 60
	leaseMargin  = 30 // seconds that must be left when an attempt begins, which takes at most sendTimeout
	// leaseSkew is how far, in seconds, the clocks of gateways may differ. A
	// lease that ends later was made by a clock that was set back since.
	leaseSkew  = 600
	holderBits = 20
)

// errLost says that another gateway sends to the receiver now.
var errLost = errors.New("another gateway sends to the receiver")

// newHolder names a notifier. It is 1 to 2^20-1.
func newHolder() int64 { return 1 + rand.Int64N(1<<holderBits-1) } //nolint:gosec // a name, no secret

func (r *receiver) lease() string { return r.cursor() + "/lease" }

// hold takes the receiver's lease, or prolongs it. errLost where another has it.
func (n *Notifier) hold(ctx context.Context, r *receiver) error {
	now := n.now().Unix()
	if left := r.until - now; left >= leaseMargin && left <= leaseSeconds {
		return nil
	}
	until := now + leaseSeconds
	err := n.store.Update(ctx, func(tx workflow.Tx) error {
		mine, err := n.mayTake(tx, r, now)
		if err != nil {
			return err
		}
		if !mine {
			return errLost
		}
		return tx.PutCursor(r.lease(), until<<holderBits|n.holder)
	})
	if err == nil {
		r.until = until
	}
	return err
}

// mayTake says whether the lease is this notifier's, or nobody's.
func (n *Notifier) mayTake(tx workflow.Reader, r *receiver, now int64) (bool, error) {
	value, err := tx.Cursor(r.lease())
	holder, until := value&(1<<holderBits-1), value>>holderBits
	return holder == n.holder || until <= now || until > now+leaseSkew, err
}

// put stores a number of the receiver's, while the lease is this notifier's:
// one that was stopped for a while must not set another back.
func (n *Notifier) put(ctx context.Context, r *receiver, name string, next int64) error {
	return n.store.Update(ctx, func(tx workflow.Tx) error {
		value, err := tx.Cursor(r.lease())
		if err != nil {
			return err
		}
		if value&(1<<holderBits-1) != n.holder {
			return errLost
		}
		return tx.PutCursor(name, next)
	})
}

// release lets another gateway go on at once.
func (n *Notifier) release(ctx context.Context, r *receiver) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// Where it fails the lease ends by itself.
	_ = n.put(ctx, r, r.lease(), 0)
	r.until = 0
}
