package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"os"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// ErrStuck says that a call into the module did not return in time. It cannot
// be cancelled, and it may hold the module's locks: a process that only signs
// should end and be started again. Errors that wrap it wrap
// signer.ErrUnavailable too.
var ErrStuck = errors.New("the PKCS#11 module does not return from a call")

// ErrLogin says that a login failed and the token did not say why: the PIN was
// sent, and may be wrong. Errors that wrap it wrap signer.ErrUnavailable too.
var ErrLogin = errors.New("the login failed")

var (
	errClosed = fmt.Errorf("PKCS#11 signer: %w", os.ErrClosed)
	// errAbsent: no token matches. Recovery starts the module again for it.
	errAbsent = errors.New("no token matches")
	// errMute and errNoMechanism are kinds of signer.ErrKey that have cures of their own.
	errMute        = errors.New("may not sign (CKA_SIGN is false)")
	errNoMechanism = errors.New("the token does not offer")
	// errTooSoon: the module was started again a moment ago.
	errTooSoon = errors.New("the module was restarted a moment ago")
)

// is reports whether err is one of the CKR codes.
func is(err error, codes ...p11.Error) bool {
	var code p11.Error
	if !errors.As(err, &code) {
		return false
	}
	for _, c := range codes {
		if code == c {
			return true
		}
	}
	return false
}

func pinError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", signer.ErrPIN, fmt.Errorf(format, args...))
}

func keyError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", signer.ErrKey, fmt.Errorf(format, args...))
}

// lateError is what a caller gets whose context ended while a call into the
// module was under way. Only a deadline makes it ErrStuck: a caller who went
// away says nothing about the device.
func lateError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w: %w", signer.ErrUnavailable, ErrStuck, ctx.Err())
	}
	return fmt.Errorf("%w: %w", signer.ErrUnavailable, ctx.Err())
}

func stuckError() error { return fmt.Errorf("%w: %w", signer.ErrUnavailable, ErrStuck) }
