package signer

import (
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"sync"

	"filippo.io/edwards25519"
)

// Unverified is the signer under Verified, for who makes many signatures and
// has all of them checked by Together before anybody sees one.
func Unverified(s Signer) Signer {
	if v, ok := s.(verified); ok {
		return v.Signer
	}
	return s
}

// Together checks signatures that one Ed25519 key made, all at once: their
// equations S·B = R + k·A (RFC 8032) are added up, and the sum is checked. A
// signature costs about a sixth of a check by itself, all of them one more.
//
// It finds what goes wrong by chance, a bit that flips in a key, a message or
// the arithmetic: errors that cancel each other out do not happen by chance.
// Somebody could make them, so signatures from elsewhere are never checked like
// this: Verify is for them. It is safe for concurrent use.
type Together struct {
	key PublicKey

	mu   sync.Mutex
	s, k *edwards25519.Scalar
	r    *edwards25519.Point
}

// NewTogether is a check of no signature yet. ErrKey for a key that is not Ed25519.
func NewTogether(key PublicKey) (*Together, error) {
	if _, ok := key.key.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("%w: only Ed25519 signatures are checked together", ErrKey)
	}
	return &Together{key: key, s: edwards25519.NewScalar(), k: edwards25519.NewScalar(), r: edwards25519.NewIdentityPoint()}, nil
}

// Add takes one signature. ErrBadSignature where it is none, which most
// damage shows at once.
func (t *Together) Add(message, sig []byte) error {
	if len(sig) != ed25519.SignatureSize {
		return t.bad()
	}
	r, err := new(edwards25519.Point).SetBytes(sig[:32])
	if err != nil {
		return t.bad()
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(sig[32:])
	if err != nil {
		return t.bad()
	}
	public, _ := t.key.key.(ed25519.PublicKey)
	h := sha512.New()
	h.Write(sig[:32])
	h.Write(public)
	h.Write(message)
	k, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
	if err != nil {
		return t.bad()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.Add(t.s, s)
	t.k.Add(t.k, k)
	t.r.Add(t.r, r)
	return nil
}

// Verify checks all that was added: ErrBadSignature where one does not verify.
func (t *Together) Verify() error {
	public, _ := t.key.key.(ed25519.PublicKey)
	a, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return t.bad()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	minusK := edwards25519.NewScalar().Negate(t.k)
	if new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusK, a, t.s).Equal(t.r) != 1 {
		return t.bad()
	}
	return nil
}

func (t *Together) bad() error { return fmt.Errorf("%w (key %s)", ErrBadSignature, t.key.KeyID()) }
