package signertest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

// Device is a backend whose device the test can break. Each order holds until
// it is taken back; an order that a kind of device cannot be given is nil, and
// its cases are left out.
type Device struct {
	Open Open
	// Away makes the device unreachable: pulled, refused, failing each call.
	Away func(t *testing.T, away bool)
	// Corrupt makes it return signatures that do not verify.
	Corrupt func(t *testing.T, corrupt bool)
	// Hang makes it not answer.
	Hang func(t *testing.T, hang bool)
	// Recovery is how long after its return the device may take to sign
	// again; 0 is 100 ms. See CheckRecovery.
	Recovery time.Duration
}

// patience is for what comes at once or, where the backend is wrong, never.
const patience = 20 * time.Second

// RunFaults puts a backend through what devices do wrong.
func RunFaults(t *testing.T, d Device, a signer.Algorithm) {
	if d.Recovery == 0 {
		d.Recovery = 100 * time.Millisecond
	}
	if d.Away != nil {
		t.Run("away and back", func(t *testing.T) { testAway(t, d, a) })
		t.Run("away and back under load", func(t *testing.T) { testAwayUnderLoad(t, d, a) })
	}
	if d.Corrupt != nil {
		t.Run("corrupt signature", func(t *testing.T) { testCorrupt(t, d, a) })
	}
	if d.Hang != nil {
		t.Run("hang", func(t *testing.T) { testHang(t, d, a) })
	}
}

func testAway(t *testing.T, d Device, a signer.Algorithm) {
	s := opened(t, d.Open, a)
	var took []time.Duration
	for range 5 {
		if _, err := s.Sign(deadline(t), []byte("m")); err != nil {
			t.Fatal(err)
		}
		d.Away(t, true)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			sig, err := s.Sign(ctx, []byte("m"))
			cancel()
			if !errors.Is(err, signer.ErrUnavailable) || sig != nil {
				t.Errorf("away: got %v, want ErrUnavailable", err)
			}
		}
		d.Away(t, false)
		took = append(took, back(t, s))
	}
	CheckRecovery(t, "the device is back", d.Recovery, took)
}

// back waits for a signature, checks it, and says how long it took.
func back(t *testing.T, s signer.Signer) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		sig, err := s.Sign(deadline(t), []byte("back"))
		if err == nil {
			if err := signer.Verify(s.Algorithm(), s.Public(), []byte("back"), sig); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if time.Since(start) > patience {
			t.Fatalf("never signed again: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// testAwayUnderLoad: many callers meet the loss and the return. Each gets a
// good signature or a plain answer.
func testAwayUnderLoad(t *testing.T, d Device, a signer.Algorithm) {
	s := opened(t, d.Open, a)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sig, err := s.Sign(deadline(t), []byte("m"))
				if err == nil {
					err = signer.Verify(a, s.Public(), []byte("m"), sig)
				} else if errors.Is(err, signer.ErrUnavailable) || errors.Is(err, signer.ErrBusy) {
					continue
				}
				if err != nil {
					t.Errorf("got %v, want a signature, ErrUnavailable or ErrBusy", err)
					return
				}
			}
		})
	}
	for range 3 {
		d.Away(t, true)
		time.Sleep(30 * time.Millisecond)
		d.Away(t, false)
		back(t, s)
	}
	close(stop)
	group.Wait()
}

func testCorrupt(t *testing.T, d Device, a signer.Algorithm) {
	s := opened(t, d.Open, a)
	d.Corrupt(t, true)
	for range 3 {
		if sig, err := s.Sign(deadline(t), []byte("m")); !errors.Is(err, signer.ErrBadSignature) || sig != nil {
			t.Errorf("got %v, want ErrBadSignature and no signature", err)
		}
	}
	d.Corrupt(t, false)
	back(t, s)
}

// testHang: each of many callers has its answer by its deadline.
func testHang(t *testing.T, d Device, a signer.Algorithm) {
	s := opened(t, d.Open, a)
	d.Hang(t, true)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			sig, err := s.Sign(ctx, []byte("m"))
			if sig != nil || !errors.Is(err, signer.ErrUnavailable) && !errors.Is(err, signer.ErrBusy) {
				t.Errorf("got %v, want ErrUnavailable or ErrBusy", err)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("the answer took %v, deadline 200ms", took)
			}
		})
	}
	group.Wait()
	d.Hang(t, false)
	back(t, s)
}
