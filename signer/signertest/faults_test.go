package signertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

// classed gives the faulty signer the errors that a backend gives.
type classed struct{ signer.Signer }

func (c classed) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := c.Signer.Sign(ctx, message)
	if err != nil && !errors.Is(err, signer.ErrBadSignature) && !errors.Is(err, signer.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnavailable, err)
	}
	return sig, err
}

func TestFaultsOfAFaultySigner(t *testing.T) {
	f := newFaulty(t)
	order := func(fault signertest.Fault) func(*testing.T, bool) {
		return func(_ *testing.T, on bool) {
			if on {
				f.Set(fault)
			} else {
				f.Set(signertest.Fault{})
			}
		}
	}
	signertest.RunFaults(t, signertest.Device{
		Open:    func(*testing.T, signer.Algorithm) signer.Signer { return classed{signer.Verified(keepOpen{f})} },
		Away:    order(signertest.Fault{Err: signer.ErrUnavailable}),
		Corrupt: order(signertest.Fault{Wrong: true}),
		Hang:    order(signertest.Fault{Hang: true}),
	}, f.Algorithm())
}

// keepOpen lets one signer be opened and closed by every case.
type keepOpen struct{ *signertest.Faulty }

func (keepOpen) Close() error { return nil }
