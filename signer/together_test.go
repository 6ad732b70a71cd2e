package signer_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

// Every bit of a message, a signature or the key that flips is found.
func TestTogether(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := must(signer.NewPublicKey(public))
	const n = 8
	var messages, sigs [n][]byte
	for i := range n {
		messages[i] = fmt.Appendf(nil, "message %d", i)
		sigs[i] = ed25519.Sign(private, messages[i])
	}
	check := func(key signer.PublicKey) error {
		all := must(signer.NewTogether(key))
		for i := range n {
			if err := all.Add(messages[i], sigs[i]); err != nil {
				return err
			}
		}
		return all.Verify()
	}
	if err := check(key); err != nil {
		t.Fatal(err)
	}
	flip := func(name string, b []byte) {
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			if err := check(key); !errors.Is(err, signer.ErrBadSignature) {
				t.Errorf("bit %d of %s: %v", bit, name, err)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	flip("a message", messages[3])
	flip("a signature", sigs[5])
	for _, short := range [][]byte{nil, sigs[0][:63], append(sigs[0][:64:64], 0)} {
		if err := must(signer.NewTogether(key)).Add(messages[0], short); !errors.Is(err, signer.ErrBadSignature) {
			t.Errorf("%d bytes: %v", len(short), err)
		}
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(must(signer.NewPublicKey(other))); !errors.Is(err, signer.ErrBadSignature) {
		t.Errorf("another key: %v", err)
	}
	if err := must(signer.NewTogether(key)).Verify(); err != nil {
		t.Errorf("no signature: %v", err)
	}
	if _, err := signer.NewTogether(must(signer.ParsePublicKey(rsaDER(null, modulus(2048), 65537)))); !errors.Is(err, signer.ErrKey) {
		t.Errorf("an RSA key: %v", err)
	}
}

func TestTogetherAtOnce(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all := must(signer.NewTogether(must(signer.NewPublicKey(public))))
	var group sync.WaitGroup
	for i := range 32 {
		group.Go(func() {
			m := fmt.Appendf(nil, "%d", i)
			if err := all.Add(m, ed25519.Sign(private, m)); err != nil {
				t.Error(err)
			}
		})
	}
	if err := all.Verify(); err != nil { // of those that are in by now
		t.Error(err)
	}
	group.Wait()
	if err := all.Verify(); err != nil {
		t.Error(err)
	}
}

// BenchmarkTogether is what 256 signatures cost to check together, against one
// by one.
func BenchmarkTogether(b *testing.B) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key := must(signer.NewPublicKey(public))
	message := make([]byte, 600)
	sig := ed25519.Sign(private, message)
	const n = 256
	start := time.Now()
	for range n {
		if err := signer.Verify(signer.Ed25519, key, message, sig); err != nil {
			b.Fatal(err)
		}
	}
	single := time.Since(start)
	for b.Loop() {
		all := must(signer.NewTogether(key))
		for range n {
			if err := all.Add(message, sig); err != nil {
				b.Fatal(err)
			}
		}
		if err := all.Verify(); err != nil {
			b.Fatal(err)
		}
	}
	each := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(each/float64(single.Nanoseconds()), "of-one-by-one")
}
