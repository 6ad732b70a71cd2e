// Package signertest is the conformance suite that every signing backend
// passes, and a signer that fails on order for the tests of those who sign.
package signertest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

// Algorithms are all that the protocol has.
var Algorithms = []signer.Algorithm{signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256}

// Open opens the backend's key for an algorithm; each call opens it anew, the
// same key. It fails the test where it cannot.
type Open func(t *testing.T, algorithm signer.Algorithm) signer.Signer

// Run puts a backend through every case, for each algorithm that it has. An
// algorithm is left out only because the service lacks it.
func Run(t *testing.T, open Open, algorithms ...signer.Algorithm) {
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			t.Run("identity", func(t *testing.T) { testIdentity(t, open, a) })
			t.Run("messages", func(t *testing.T) { testMessages(t, open, a) })
			t.Run("low S", func(t *testing.T) { testLowS(t, open, a) })
			t.Run("caller reuses its buffer", func(t *testing.T) { testBuffer(t, open, a) })
			t.Run("concurrent", func(t *testing.T) { testConcurrent(t, open, a) })
			t.Run("cancelled", func(t *testing.T) { testCancelled(t, open, a) })
			t.Run("closed", func(t *testing.T) { testClosed(t, open, a) })
		})
	}
}

func testIdentity(t *testing.T, open Open, a signer.Algorithm) {
	s, again := opened(t, open, a), opened(t, open, a)
	if s.Algorithm() != a {
		t.Fatalf("algorithm is %s, want %s", s.Algorithm(), a)
	}
	if s.Public().IsZero() || !a.Fits(s.Public().Key()) {
		t.Fatalf("the public key does not fit %s", a)
	}
	if !s.Public().Equal(again.Public()) {
		t.Fatal("the same key opened twice has two public keys")
	}
	if _, err := signer.ParsePublicKey(s.Public().DER()); err != nil {
		t.Fatalf("the public key does not parse: %v", err)
	}
}

// testMessages: every length that could be a border, 64 KiB included.
func testMessages(t *testing.T, open Open, a signer.Algorithm) {
	s := opened(t, open, a)
	for _, n := range []int{0, 1, 31, 32, 33, 64, 255, 256, 1023, signer.MaxHardwareEd25519, signer.MaxHardwareEd25519 + 1, 64 << 10} {
		message := bytes.Repeat([]byte{'m'}, n)
		sig, err := s.Sign(deadline(t), message)
		if a == signer.Ed25519 && n > signer.MaxHardwareEd25519 {
			if !errors.Is(err, signer.ErrMessageTooLong) || sig != nil {
				t.Errorf("%d bytes: got %v, want ErrMessageTooLong", n, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
			continue
		}
		if err := signer.Verify(a, s.Public(), message, sig); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if signer.Verify(a, s.Public(), append(message, 'x'), sig) == nil {
			t.Errorf("%d bytes: the signature fits another message too", n)
		}
	}
}

// testLowS signs often enough that a backend which passes high S on is seen:
// it escapes once in 2^24.
func testLowS(t *testing.T, open Open, a signer.Algorithm) {
	s := opened(t, open, a)
	public, ok := s.Public().Key().(*ecdsa.PublicKey)
	if !ok {
		return
	}
	half := new(big.Int).Rsh(public.Params().N, 1)
	for i := range 24 {
		sig, err := s.Sign(deadline(t), []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) != 0 {
			t.Fatalf("signature is not strict DER: %v", err)
		}
		if rs.S.Cmp(half) > 0 {
			t.Fatal("signature has a high S")
		}
	}
}

func testBuffer(t *testing.T, open Open, a signer.Algorithm) {
	s := opened(t, open, a)
	buffer := []byte("first message")
	sig, err := s.Sign(deadline(t), buffer)
	if err != nil {
		t.Fatal(err)
	}
	kept := bytes.Clone(sig)
	copy(buffer, "other")
	if _, err := s.Sign(deadline(t), buffer); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, sig) {
		t.Fatal("a signature changed after the next one")
	}
	if err := signer.Verify(a, s.Public(), []byte("first message"), sig); err != nil {
		t.Fatal(err)
	}
}

func testConcurrent(t *testing.T, open Open, a signer.Algorithm) {
	s := opened(t, open, a)
	ctx := deadline(t)
	var group sync.WaitGroup
	for caller := range 16 {
		group.Go(func() {
			for i := range 4 {
				message := fmt.Appendf(nil, "caller %d, message %d", caller, i)
				sig, err := s.Sign(ctx, message)
				if err == nil {
					err = signer.Verify(a, s.Public(), message, sig)
				}
				if err != nil {
					t.Errorf("%s: %v", message, err)
				}
			}
		})
	}
	group.Wait()
}

func testCancelled(t *testing.T, open Open, a signer.Algorithm) {
	s := opened(t, open, a)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if sig, err := s.Sign(ctx, []byte("m")); !errors.Is(err, context.Canceled) || sig != nil {
		t.Fatalf("cancelled: got %v, want context.Canceled", err)
	}
	past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := s.Sign(past, []byte("m")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("past the deadline: got %v, want context.DeadlineExceeded", err)
	}
	if _, err := s.Sign(deadline(t), []byte("m")); err != nil {
		t.Fatalf("after a cancelled call: %v", err)
	}
}

func testClosed(t *testing.T, open Open, a signer.Algorithm) {
	s, other := open(t, a), opened(t, open, a)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	if sig, err := s.Sign(deadline(t), []byte("m")); !errors.Is(err, os.ErrClosed) || sig != nil {
		t.Fatalf("closed: got %v, want os.ErrClosed", err)
	}
	if _, err := other.Sign(deadline(t), []byte("m")); err != nil {
		t.Fatalf("another signer of the same key, after the first was closed: %v", err)
	}
}

// opened is a signer that the test closes at its end.
func opened(t *testing.T, open Open, a signer.Algorithm) signer.Signer {
	t.Helper()
	s := open(t, a)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
