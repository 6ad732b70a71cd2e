package signertest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

func newFaulty(t *testing.T) *signertest.Faulty {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := filekey.New(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return signertest.NewFaulty(s)
}

func TestFaultySignsWithoutFault(t *testing.T) {
	f := newFaulty(t)
	sig, err := f.Sign(t.Context(), []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.Verify(f.Algorithm(), f.Public(), []byte("m"), sig); err != nil {
		t.Fatal(err)
	}
	if f.Calls() != 1 {
		t.Fatalf("%d calls, want 1", f.Calls())
	}
}

func TestFaultyWrongSignatureIsCaughtByVerified(t *testing.T) {
	f := newFaulty(t)
	f.Set(signertest.Fault{Wrong: true})
	if _, err := f.Sign(t.Context(), []byte("m")); err != nil {
		t.Fatalf("unchecked: %v", err)
	}
	if sig, err := signer.Verified(f).Sign(t.Context(), []byte("m")); !errors.Is(err, signer.ErrBadSignature) || sig != nil {
		t.Fatalf("checked: got %v, want ErrBadSignature", err)
	}
}

func TestFaultyErrorDelayHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t)
		f.Set(signertest.Fault{Err: signer.ErrBusy})
		if _, err := f.Sign(t.Context(), nil); !errors.Is(err, signer.ErrBusy) {
			t.Fatalf("error: got %v", err)
		}
		f.Set(signertest.Fault{Delay: time.Second})
		start := time.Now()
		if _, err := f.Sign(t.Context(), nil); err != nil || time.Since(start) != time.Second {
			t.Fatalf("delay: %v after %v", err, time.Since(start))
		}
		f.Set(signertest.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Sign(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("hang: got %v", err)
		}
	})
}

func TestFaultyDeafHangsUntilReleased(t *testing.T) {
	f := newFaulty(t)
	f.Set(signertest.Fault{Hang: true, Deaf: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := f.Sign(context.WithoutCancel(ctx), []byte("m"))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("returned before its release: %v", err)
	case <-ctx.Done():
	}
	f.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
