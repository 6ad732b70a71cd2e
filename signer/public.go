package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"filippo.io/edwards25519"

	"github.com/kernelgate/kernelgate/signer/failure"
)

// maxSPKI bounds the DER that is parsed: an RSA-4096 key takes 550 bytes.
const maxSPKI = 1024

// PublicKey is a public key in the one encoding that PROTOCOL section 3 accepts.
// The zero value is no key; make one with ParsePublicKey or NewPublicKey.
type PublicKey struct {
	der   []byte
	key   crypto.PublicKey
	keyID string
}

// ParsePublicKey parses a DER SubjectPublicKeyInfo strictly (PROTOCOL section
// 3): it must equal its own re-encoding, be of a type and size that the
// protocol has, and an Ed25519 point must be canonical and in the prime-order
// subgroup. The failure class is field_invalid.
func ParsePublicKey(der []byte) (PublicKey, error) {
	if len(der) > maxSPKI {
		return PublicKey{}, failure.New(failure.FieldInvalid, "public key of %d bytes is longer than any that is accepted", len(der))
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, failure.New(failure.FieldInvalid, "public key is not a DER SubjectPublicKeyInfo: %w", err)
	}
	p, err := NewPublicKey(key)
	if err != nil {
		return PublicKey{}, err
	}
	// One P-256 key has several encodings, hence several hashes; identity is
	// the hash, so only one encoding is the key.
	if !bytes.Equal(p.der, der) {
		return PublicKey{}, failure.New(failure.FieldInvalid, "public key is not in its one canonical encoding")
	}
	return p, nil
}

// NewPublicKey takes a key of the standard library's types. It refuses what
// ParsePublicKey refuses.
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	if err := checkKey(key); err != nil {
		return PublicKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return PublicKey{}, failure.New(failure.FieldInvalid, "public key cannot be encoded: %w", err)
	}
	sum := sha256.Sum256(der)
	return PublicKey{der: der, key: key, keyID: hex.EncodeToString(sum[:])}, nil
}

// DER is the key's SubjectPublicKeyInfo. Callers must not change it.
func (p PublicKey) DER() []byte { return p.der }

// Key is the key as *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey.
func (p PublicKey) Key() crypto.PublicKey { return p.key }

// KeyID is the lower-case hex SHA-256 of DER: 64 digits.
func (p PublicKey) KeyID() string { return p.keyID }

// IsZero reports whether there is no key.
func (p PublicKey) IsZero() bool { return p.key == nil }

// Equal reports whether both are the same key.
func (p PublicKey) Equal(q PublicKey) bool { return p.keyID == q.keyID }

func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return failure.New(failure.FieldInvalid, "EC keys are P-256 or P-384")
		}
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n != 2048 && n != 3072 && n != 4096 {
			return failure.New(failure.FieldInvalid, "RSA keys have 2048, 3072 or 4096 bits, not %d", n)
		}
		if k.E != 65537 {
			return failure.New(failure.FieldInvalid, "RSA keys have the public exponent 65537")
		}
		return nil
	case ed25519.PublicKey:
		return checkEd25519(k)
	}
	return failure.New(failure.FieldInvalid, "keys of this type are not accepted")
}

// checkEd25519 refuses what crypto/ed25519 would take: non-canonical
// encodings and points outside the prime-order subgroup, for which more than
// one message, or one message under more than one key, can verify.
func checkEd25519(key ed25519.PublicKey) error {
	point, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return failure.New(failure.FieldInvalid, "Ed25519 key is not a point of the curve")
	}
	if !bytes.Equal(point.Bytes(), key) {
		return failure.New(failure.FieldInvalid, "Ed25519 key is not canonical")
	}
	identity := edwards25519.NewIdentityPoint()
	// -1 is L-1 as a scalar, so this is [L-1]P + P = [L]P.
	minusOne := new(edwards25519.Scalar).Subtract(edwards25519.NewScalar(), scalarOne())
	lP := new(edwards25519.Point).ScalarMult(minusOne, point)
	lP.Add(lP, point)
	if point.Equal(identity) == 1 || lP.Equal(identity) != 1 {
		return failure.New(failure.FieldInvalid, "Ed25519 key is not in the prime-order subgroup")
	}
	return nil
}

func scalarOne() *edwards25519.Scalar {
	one := [32]byte{1}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(one[:])
	if err != nil {
		panic(err) // 1 is canonical
	}
	return s
}
