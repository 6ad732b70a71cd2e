package workflow

import (
	"context"
	"time"

	"github.com/kernelgate/kernelgate/signer/failure"
)

// witnessRetry is how long witnesses are left alone after they could not, or
// would not, cosign.
const witnessRetry = 5 * time.Second

// cosign asks the witnesses about a checkpoint at least as new as the newest at
// the call, once at a time.
func (e *Engine) cosign(ctx context.Context) error {
	return e.cosigning.do(ctx, func(ctx context.Context) error {
		err := e.Witnesses.Cosign(ctx)
		if failure.ClassOf(err) == failure.AuditFork {
			e.fork(ctx, err)
		}
		return err
	})
}

// keepWitnessed has each new checkpoint cosigned, beside the work.
func (e *Engine) keepWitnessed(ctx context.Context) {
	trouble := complaint{what: "the log could not be witnessed"}
	for ctx.Err() == nil {
		err := e.cosign(ctx)
		trouble.report(ctx, e, err)
		if err != nil {
			sleep(ctx, witnessRetry)
			continue
		}
		select {
		case <-ctx.Done():
		case <-e.sealed:
		}
	}
}
