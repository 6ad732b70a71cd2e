package workflow

import (
	"context"
	"errors"
)

// ErrHeld says that no new work is taken at the moment. Its text says why, and
// is shown.
var ErrHeld = errors.New("new work is not taken at the moment")

// held asks Config.Admit. A rejection is always taken: it only stops.
func (e *Engine) held(ctx context.Context, kind string) error {
	if err := e.standstill(); err != nil {
		return err
	}
	if e.Admit == nil || kind == KindRejection {
		return nil
	}
	return e.Admit(ctx)
}
