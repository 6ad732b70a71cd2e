package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // linked for crypto.SHA256
	_ "crypto/sha512" // linked for crypto.SHA384
)

// Algorithm is one signature algorithm of PROTOCOL section 3. The registry
// fixes it for each key; a message never chooses it.
type Algorithm string

// The algorithms of PROTOCOL section 3.
const (
	ECDSAP256SHA256 Algorithm = "ecdsa-p256-sha256"
	ECDSAP384SHA384 Algorithm = "ecdsa-p384-sha384"
	Ed25519         Algorithm = "ed25519"
	RSAPSSSHA256    Algorithm = "rsa-pss-sha256"
	RSAPKCS1SHA256  Algorithm = "rsa-pkcs1-sha256"
)

// PSSSaltLength is the salt of rsa-pss-sha256, in bytes.
const PSSSaltLength = 32

// Hash is the digest that the algorithm signs, or 0 for ed25519, which signs
// the message itself, and for an unknown algorithm.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case ECDSAP256SHA256, RSAPSSSHA256, RSAPKCS1SHA256:
		return crypto.SHA256
	case ECDSAP384SHA384:
		return crypto.SHA384
	}
	return 0
}

// Fits reports whether a key of this type signs with the algorithm.
func (a Algorithm) Fits(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return a == ECDSAP256SHA256 && k.Curve == elliptic.P256() || a == ECDSAP384SHA384 && k.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return a == Ed25519
	case *rsa.PublicKey:
		return a == RSAPSSSHA256 || a == RSAPKCS1SHA256
	}
	return false
}

// DefaultAlgorithm is the algorithm that fits the key; for RSA it is
// rsa-pss-sha256. It is "" where none fits.
func DefaultAlgorithm(key crypto.PublicKey) Algorithm {
	for _, a := range []Algorithm{ECDSAP256SHA256, ECDSAP384SHA384, Ed25519, RSAPSSSHA256} {
		if a.Fits(key) {
			return a
		}
	}
	return ""
}
