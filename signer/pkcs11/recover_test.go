package pkcs11_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

// recoveryLimit is the promise: signing works again this long after the
// token's return.
const recoveryLimit = 100 * time.Millisecond

// TestTokenGoesAwayAndComesBack moves the tokens' directory away. SoftHSM2
// still says then that the session is fine, and signing fails with
// CKR_OBJECT_HANDLE_INVALID for ever, until the module is started again.
func TestTokenGoesAwayAndComesBack(t *testing.T) {
	env := newEnv(t)
	token := newToken(t, env, "traveller")
	first := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	second := newKey(t, token, "l", 2, signer.Ed25519)
	a, b := openKey(t, first.URI, pkcs11.Options{}), openKey(t, second.URI, pkcs11.Options{})
	var times []time.Duration
	for range 5 {
		mustSign(t, a)
		mustSign(t, b)
		hidden := env.TokenDir() + ".away"
		if err := os.Rename(env.TokenDir(), hidden); err != nil {
			t.Fatal(err)
		}
		awayFor(t, a, 300*time.Millisecond)
		if err := os.Rename(hidden, env.TokenDir()); err != nil {
			t.Fatal(err)
		}
		times = append(times, backAfter(t, a))
		mustSign(t, b)
	}
	t.Logf("signs again so long after the token's return: %v", times)
	signertest.CheckRecovery(t, "the token's directory goes away", recoveryLimit, times)
}

// awayFor asks for signatures all the while; each must fail in time and say so.
func awayFor(t *testing.T, s signer.Signer, d time.Duration) {
	t.Helper()
	failures := 0
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		start := time.Now()
		_, err := s.Sign(within(t, 20*time.Second), []byte("m"))
		if err == nil {
			continue // SoftHSM2 may have the key in memory still
		}
		failures++
		if !errors.Is(err, signer.ErrUnavailable) {
			t.Fatalf("token away: got %v, want ErrUnavailable", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("token away: the error took %v", took)
		}
	}
	if failures == 0 {
		t.Fatal("the token never went away: the test tests nothing")
	}
}

func backAfter(t *testing.T, s signer.Signer) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		_, err := s.Sign(within(t, 20*time.Second), []byte("m"))
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("never signed again: %v", err)
		}
	}
}

// TestSessionsClosedBehindOurBack: another part of the process, or the device,
// closes every session, which also ends the login.
func TestSessionsClosedBehindOurBack(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "closed"), "k", 1, signer.ECDSAP256SHA256)
	s := openKey(t, key.URI, pkcs11.Options{})
	c := p11.New(key.URI.ModulePath) // the same library, already initialised
	for range 3 {
		mustSign(t, s)
		slots, err := c.GetSlotList(true)
		if err != nil {
			t.Fatal(err)
		}
		for _, slot := range slots {
			if err := c.CloseAllSessions(slot); err != nil {
				t.Fatal(err)
			}
		}
		mustSign(t, s)
	}
}

// TestModuleFinalizedBehindOurBack: CKR_CRYPTOKI_NOT_INITIALIZED.
func TestModuleFinalizedBehindOurBack(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "finalized"), "k", 1, signer.ECDSAP256SHA256)
	s := openKey(t, key.URI, pkcs11.Options{})
	mustSign(t, s)
	if err := p11.New(key.URI.ModulePath).Finalize(); err != nil {
		t.Fatal(err)
	}
	mustSign(t, s)
}

// TestRecoveryUnderLoad: many callers meet the loss at once; all sign again.
func TestRecoveryUnderLoad(t *testing.T) {
	env := newEnv(t)
	key := newKey(t, newToken(t, env, "load"), "k", 1, signer.ECDSAP256SHA256)
	s := openKey(t, key.URI, pkcs11.Options{})
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
				if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); err != nil && !errors.Is(err, signer.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
					return
				}
			}
		})
	}
	for range 3 {
		if err := os.Rename(env.TokenDir(), env.TokenDir()+".away"); err != nil {
			t.Error(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := os.Rename(env.TokenDir()+".away", env.TokenDir()); err != nil {
			t.Error(err)
		}
		t.Logf("signs again %v after the token's return, beside 16 callers", backAfter(t, s))
	}
	close(stop)
	group.Wait()
	mustSign(t, s)
}

func TestSessionsAreCappedAndTheQueueIsBounded(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "cap"), "k", 1, signer.RSAPSSSHA256)
	key.URI.MaxSessions = 2
	s := openKey(t, key.URI, pkcs11.Options{Queue: 4})
	var busy, signed, most atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := p11.New(key.URI.ModulePath)
		for signed.Load()+busy.Load() < 64 {
			slots, err := c.GetSlotList(true)
			if err != nil {
				t.Error(err)
				return
			}
			for _, slot := range slots {
				if info, err := c.GetTokenInfo(slot); err == nil && info.Label == "cap" {
					most.Store(max(most.Load(), int32(info.SessionCount)))
				}
			}
		}
	}()
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			_, err := s.Sign(within(t, 20*time.Second), []byte("m"))
			switch {
			case err == nil:
				signed.Add(1)
			case errors.Is(err, signer.ErrBusy):
				busy.Add(1)
			default:
				t.Errorf("got %v, want ErrBusy", err)
				busy.Add(1)
			}
		})
	}
	group.Wait()
	<-done
	if busy.Load() == 0 || signed.Load() < 6 {
		t.Errorf("%d signed, %d busy of 64, with 2 sessions and a queue of 4", signed.Load(), busy.Load())
	}
	if most.Load() > 3 {
		t.Errorf("%d sessions were open, want at most 2 and the login session", most.Load())
	}
	mustSign(t, s)
}

// TestWaitEndsWithTheContext: who waits for a session waits no longer than
// its context, and the pool is whole afterwards.
func TestWaitEndsWithTheContext(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "wait"), "k", 1, signer.ECDSAP256SHA256)
	key.URI.MaxSessions = 1
	s, err := pkcs11.RawSigner(within(t, 10*time.Second), key.URI, pkcs11.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	giveBack := pkcs11.HoldSession(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Sign(ctx, []byte("m")); !errors.Is(err, signer.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want ErrBusy and DeadlineExceeded", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Fatalf("waited %v, want 50ms", took)
	}
	giveBack()
	mustSign(t, s)
}

func TestModuleIsFinalizedByTheLastClose(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "last"), "k", 1, signer.ECDSAP256SHA256)
	first, err := pkcs11.Open(within(t, 10*time.Second), key.URI, pkcs11.Options{})
	if err != nil {
		t.Fatal(err)
	}
	second := openKey(t, key.URI, pkcs11.Options{})
	c := p11.New(key.URI.ModulePath)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustSign(t, second)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetInfo(); !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		t.Fatalf("after the last Close: got %v, want CKR_CRYPTOKI_NOT_INITIALIZED", err)
	}
}
