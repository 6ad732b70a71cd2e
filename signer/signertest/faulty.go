package signertest

import (
	"context"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

// Fault is what a Faulty signer does to a signature. The zero value is none.
type Fault struct {
	Err   error         // returned instead of a signature
	Wrong bool          // a signature that does not verify
	Delay time.Duration // before anything else; ctx ends it
	Hang  bool          // until ctx ends
	// Deaf ignores ctx in Delay and Hang, as a broken device does; Release
	// ends the hang.
	Deaf bool
}

// Faulty is a signer that fails on order. Make one with NewFaulty.
type Faulty struct {
	inner signer.Signer

	mu      sync.Mutex
	fault   Fault
	calls   int
	release chan struct{}
}

// NewFaulty wraps inner, which must sign for itself. Signatures that it breaks
// are not checked: wrap it by signer.Verified to see them refused.
func NewFaulty(inner signer.Signer) *Faulty {
	return &Faulty{inner: inner, release: make(chan struct{})}
}

// Set makes the signatures that begin from now on fail so.
func (f *Faulty) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Calls is how many signatures have begun.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Release lets every call that hangs go on to sign.
func (f *Faulty) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.release)
	f.release = make(chan struct{})
}

// Public is the inner signer's.
func (f *Faulty) Public() signer.PublicKey { return f.inner.Public() }

// Algorithm is the inner signer's.
func (f *Faulty) Algorithm() signer.Algorithm { return f.inner.Algorithm() }

// Close closes the inner signer.
func (f *Faulty) Close() error { return f.inner.Close() }

// Sign signs, or fails as the fault says.
func (f *Faulty) Sign(ctx context.Context, message []byte) ([]byte, error) {
	f.mu.Lock()
	f.calls++
	fault, release := f.fault, f.release
	f.mu.Unlock()
	if err := fault.wait(ctx, release); err != nil {
		return nil, err
	}
	if fault.Err != nil {
		return nil, fault.Err
	}
	if fault.Wrong {
		// A true signature of something else: right in form, wrong in content.
		message = append([]byte("not "), message...)
	}
	return f.inner.Sign(ctx, message)
}

func (f Fault) wait(ctx context.Context, release <-chan struct{}) error {
	done := ctx.Done()
	if f.Deaf {
		done = nil
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-done:
			return ctx.Err()
		}
	}
	if f.Hang {
		select {
		case <-release:
		case <-done:
			return ctx.Err()
		}
	}
	return nil
}
