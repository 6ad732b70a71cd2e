package workflow

import (
	"context"
	"sync"
)

// Drive is one round of Run, with all of its steps, for tests that want to
// know when it has ended.
func (e *Engine) Drive(ctx context.Context) error {
	var steps sync.WaitGroup
	defer steps.Wait()
	if err := e.round(ctx, &steps); err != nil {
		return err
	}
	return e.seal(ctx)
}

// GiveUpClaims is what Run does first.
func (e *Engine) GiveUpClaims(ctx context.Context) { e.releaseClaims(ctx) }

// Bounds of the log's growth by nonsense.
const (
	MaxInvalidOfKey = maxInvalidOfKey
	MaxInvalid      = maxInvalid
)
