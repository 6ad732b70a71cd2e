package pkcs11_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// TestCallThatDoesNotReturn: a login that hangs, here because the PIN never
// comes, stands for any call that does. Callers get their answer in time, the
// process is told, later callers are not kept waiting, and a module that
// comes round after all is used again.
func TestCallThatDoesNotReturn(t *testing.T) {
	token := newToken(t, newEnv(t), "stuck")
	key := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	pin, err := token.PIN()
	if err != nil {
		t.Fatal(err)
	}
	var hang atomic.Bool
	release, told := make(chan struct{}), make(chan struct{}, 8)
	key.URI.PINSource = pkcs11.PINSource{}
	s := openKey(t, key.URI, pkcs11.Options{
		CallTimeout: time.Second,
		OnStuck:     func() { told <- struct{}{} },
		PIN: func(context.Context, string) ([]byte, error) {
			if hang.Load() {
				<-release
			}
			return []byte(pin), nil
		},
	})
	mustSign(t, s)
	hang.Store(true)
	pkcs11.ForgetLogin(t, key.URI.ModulePath)

	start := time.Now()
	_, err = s.Sign(within(t, 100*time.Millisecond), []byte("m"))
	if !errors.Is(err, pkcs11.ErrStuck) || !errors.Is(err, signer.ErrUnavailable) {
		t.Fatalf("got %v, want ErrStuck and ErrUnavailable", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Fatalf("the answer took %v, deadline 100ms", took)
	}
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Fatal("OnStuck was not called")
	}
	start = time.Now()
	if _, err = s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, pkcs11.ErrStuck) {
		t.Fatalf("got %v, want ErrStuck", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Fatalf("a caller waited %v for a module known to be stuck", took)
	}
	hang.Store(false)
	close(release)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err = s.Sign(within(t, 20*time.Second), []byte("m")); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the module came round, the signer did not: %v", err)
		}
	}
}
