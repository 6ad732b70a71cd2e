package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"

	"github.com/kernelgate/kernelgate/signer/failure"
)

// Verify checks sig over message (the message, not its digest) under key with
// algorithm, by PROTOCOL section 3: ECDSA signatures are strict ASN.1 DER with
// low or high S, Ed25519 is pure and cofactorless with S < L, PSS has a salt
// of 32 bytes. The failure class is signature_invalid.
func Verify(algorithm Algorithm, key PublicKey, message, sig []byte) error {
	if !algorithm.Fits(key.key) {
		return failure.New(failure.SignatureInvalid, "algorithm %q does not fit the key", algorithm)
	}
	ok := false
	switch k := key.key.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, Digest(algorithm, message), sig)
	case *rsa.PublicKey:
		digest := Digest(algorithm, message)
		if algorithm == RSAPSSSHA256 {
			options := &rsa.PSSOptions{SaltLength: PSSSaltLength, Hash: crypto.SHA256}
			ok = rsa.VerifyPSS(k, crypto.SHA256, digest, sig, options) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, sig) == nil
		}
	}
	if !ok {
		return failure.New(failure.SignatureInvalid, "the signature does not verify under key %s", key.keyID)
	}
	return nil
}

// Digest is what the algorithm signs of a message: its hash, or the message
// itself for ed25519.
func Digest(algorithm Algorithm, message []byte) []byte {
	h := algorithm.Hash()
	if h == 0 {
		return message
	}
	w := h.New()
	w.Write(message)
	return w.Sum(nil)
}
