package upgrade_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// bare is one signature of the bundle, ready for the standard library.
type bare struct {
	algorithm    signer.Algorithm
	key          signer.PublicKey
	message, sig []byte
}

// verify is nothing but the standard library's hash and verification.
func (s bare) verify() bool {
	switch k := s.key.Key().(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, s.message, s.sig)
	case *ecdsa.PublicKey:
		if s.algorithm == signer.ECDSAP384SHA384 {
			sum := sha512.Sum384(s.message)
			return ecdsa.VerifyASN1(k, sum[:], s.sig)
		}
		sum := sha256.Sum256(s.message)
		return ecdsa.VerifyASN1(k, sum[:], s.sig)
	case *rsa.PublicKey:
		sum := sha256.Sum256(s.message)
		if s.algorithm == signer.RSAPKCS1SHA256 {
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], s.sig) == nil
		}
		return rsa.VerifyPSS(k, crypto.SHA256, sum[:], s.sig, &rsa.PSSOptions{SaltLength: signer.PSSSaltLength}) == nil
	}
	return false
}

func bareSignatures(b *testing.B, w *world, q *upgrade.QuorumBundle) []bare {
	b.Helper()
	var list []bare
	for _, env := range append([]envelope.Envelope{q.Manifest, q.TestResults[0]}, q.Approvals...) {
		entry, err := w.regs.Last().Lookup(env.Signatures[0].KeyID)
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, bare{entry.Key.Algorithm, entry.Key.Public(), env.PAE(), env.Signatures[0].Sig})
	}
	return list
}

// BenchmarkVerifyBundle measures a whole verdict against the bare signature
// verifications in it, in turns within one run, so that a busy machine slows
// both alike. ratio is verdict/bare; the house's limit is 1.25.
func BenchmarkVerifyBundle(b *testing.B) {
	w := newWorld(b)
	w.register()
	q := w.quorum()
	signatures := bareSignatures(b, w, &q)
	var whole, alone time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := upgrade.VerifyBundle(w.regs, &q); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		for _, s := range signatures {
			if !s.verify() {
				b.Fatal("a signature of the test does not verify")
			}
		}
		whole += middle.Sub(begin)
		alone += time.Since(middle)
	}
	b.ReportMetric(float64(whole)/float64(alone), "ratio")
	b.ReportMetric(float64(alone.Microseconds())/float64(b.N), "bare-µs/op")
}

// BenchmarkVerifyFile is a bundle file from its bytes: registry chain, verdict,
// record and audit part.
func BenchmarkVerifyFile(b *testing.B) {
	w := newWorld(b)
	data := quorumFile(w)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := upgrade.VerifyFile(data, w.root, true); err != nil {
			b.Fatal(err)
		}
	}
}
