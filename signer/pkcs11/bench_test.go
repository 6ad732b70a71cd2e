package pkcs11_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// benchSessions is how many sessions both sides of the comparison have.
const benchSessions = 8

// BenchmarkSignP256 is the guard's way: calls on the caller's goroutine.
func BenchmarkSignP256(b *testing.B) { benchmarkSignP256(b, pkcs11.Options{Inline: true}) }

// BenchmarkSignP256Apart is the default: calls that the caller can leave.
func BenchmarkSignP256Apart(b *testing.B) { benchmarkSignP256(b, pkcs11.Options{}) }

// benchmarkSignP256 signs with this package, with a bare loop and with
// crypto11, on the same token in the same run, turn about, and prints the ratio
// of our speed to each of theirs (more is better). The check of signatures is
// left out of all: neither of the others has one.
func benchmarkSignP256(b *testing.B, opts pkcs11.Options) {
	key := newKey(b, newToken(b, newEnv(b), "bench"), "k", 1, signer.ECDSAP256SHA256)
	key.URI.MaxSessions = benchSessions
	other := newCrypto11(b, key.URI) // before us, since it insists on initialising the module
	s, err := pkcs11.RawSigner(context.Background(), key.URI, opts)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	bare := newBareLoop(b, key.URI)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	ours := func(int) error {
		_, err := s.Sign(ctx, []byte("message"))
		return err
	}
	ways := []func(int) error{ours, bare, other}
	for _, callers := range []int{1, 2, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			took := make([]time.Duration, len(ways))
			const slice = 128 // signatures a turn, so that all meet the same weather
			turn := 0
			for done := 0; done < b.N; done += slice {
				n := min(slice, b.N-done)
				for i := range ways {
					i = (i + turn) % len(ways) // nobody always goes first
					took[i] += timed(b, callers, n, ways[i])
				}
				turn++
			}
			b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "us/signer-op")
			b.ReportMetric(float64(took[1])/float64(took[0]), "of-bare")
			b.ReportMetric(float64(took[2])/float64(took[0]), "of-crypto11")
		})
	}
}

// newCrypto11 signs by crypto11, with as many sessions.
func newCrypto11(b *testing.B, u pkcs11.URI) func(int) error {
	pin, err := u.PINSource.Read()
	if err != nil {
		b.Fatal(err)
	}
	c, err := crypto11.Configure(&crypto11.Config{Path: u.ModulePath, TokenSerial: u.Serial, Pin: string(pin), MaxSessions: benchSessions + 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	key, err := c.FindKeyPair(u.ID, nil)
	if err != nil || key == nil {
		b.Fatalf("crypto11 finds no key: %v", err)
	}
	return func(int) error {
		digest := sha256.Sum256([]byte("message"))
		_, err := key.Sign(nil, digest[:], crypto.SHA256)
		return err
	}
}

// timed runs n signatures, shared among the callers.
func timed(b *testing.B, callers, n int, sign func(caller int) error) time.Duration {
	var next atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	for caller := range callers {
		group.Go(func() {
			for next.Add(1) <= int64(n) {
				if err := sign(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// newBareLoop is what a program does without any package: sessions, a
// digest, SignInit and Sign. It shares the login that the signer made.
func newBareLoop(b *testing.B, u pkcs11.URI) func(int) error {
	c := p11.New(u.ModulePath)
	slots, err := c.GetSlotList(true)
	if err != nil {
		b.Fatal(err)
	}
	sessions := make(chan p11.SessionHandle, benchSessions)
	var object p11.ObjectHandle
	for _, slot := range slots {
		if info, err := c.GetTokenInfo(slot); err != nil || info.Label != u.Token {
			continue
		}
		for range benchSessions {
			session, err := c.OpenSession(slot, p11.CKF_SERIAL_SESSION)
			if err != nil {
				b.Fatal(err)
			}
			sessions <- session
			if err := c.FindObjectsInit(session, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}); err != nil {
				b.Fatal(err)
			}
			found, _, err := c.FindObjects(session, 1)
			if err != nil || len(found) != 1 {
				b.Fatalf("find the key: %v", err)
			}
			object = found[0]
			if err := c.FindObjectsFinal(session); err != nil {
				b.Fatal(err)
			}
		}
	}
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}
	return func(int) error {
		session := <-sessions
		defer func() { sessions <- session }()
		digest := sha256.Sum256([]byte("message"))
		if err := c.SignInit(session, mechanism, object); err != nil {
			return err
		}
		_, err := c.Sign(session, digest[:])
		return err
	}
}
