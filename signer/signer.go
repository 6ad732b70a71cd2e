// Package signer is the one shape of a signing key, wherever it lives: in a
// PKCS#11 token, a smartcard, a cloud KMS or, for development, a file. It
// also says what a valid signature is (Verify) and what a valid public key is
// (ParsePublicKey), by PROTOCOL section 3.
//
// Backends are rooms of their own (signer/pkcs11, signer/awskms, ...);
// signer/open turns a URI into a Signer. Every Signer that leaves a backend is
// wrapped by Verified, so that no caller ever sees a signature that does not
// verify.
package signer

import (
	"context"
	"errors"
	"fmt"
)

// Signer signs messages with one key. It is safe for concurrent use.
type Signer interface {
	// Public is the key, fetched once when the signer was opened.
	Public() PublicKey
	// Algorithm is the one algorithm that this signer uses.
	Algorithm() Algorithm
	// Sign signs message: the whole message, not a digest. The signature has
	// the encoding of PROTOCOL section 3 (ECDSA: ASN.1 DER with low S).
	// It returns by ctx's deadline, with one of the errors below where one fits.
	Sign(ctx context.Context, message []byte) ([]byte, error)
	// Close gives up sessions and connections. The signer is unusable after it.
	Close() error
}

// What can be wrong with a device, whatever its kind. A backend's errors wrap
// the one that fits, so that callers can tell what helps.
var (
	// ErrUnavailable: the device, token or service is away or not answering;
	// the same call may succeed later.
	ErrUnavailable = errors.New("signing device unavailable")
	// ErrBusy: more callers wait for the device than the queue holds.
	ErrBusy = errors.New("signing device busy")
	// ErrPIN: the PIN is wrong or locked. It is never tried again by itself.
	ErrPIN = errors.New("PIN refused")
	// ErrKey: no such key, more than one, another key than expected, or one
	// that may not sign.
	ErrKey = errors.New("signing key unusable")
	// ErrMessageTooLong: hardware takes Ed25519 messages in one piece, and
	// this one is over MaxHardwareEd25519.
	ErrMessageTooLong = errors.New("message too long for a hardware Ed25519 key")
	// ErrBadSignature: the device returned a signature that does not verify.
	ErrBadSignature = errors.New("device returned a signature that does not verify")
)

// MaxHardwareEd25519 is the longest message, in bytes, that a hardware
// Ed25519 key is asked to sign (PROTOCOL section 3).
const MaxHardwareEd25519 = 1900

// CheckHardwareMessage refuses a message that small devices cannot sign with
// Ed25519, and says which kind of key to use instead.
func CheckHardwareMessage(algorithm Algorithm, message []byte) error {
	if algorithm == Ed25519 && len(message) > MaxHardwareEd25519 {
		return fmt.Errorf("%w: %d bytes, at most %d; sign with a P-256, P-384 or RSA key instead, which take a digest of any message",
			ErrMessageTooLong, len(message), MaxHardwareEd25519)
	}
	return nil
}

// Verified wraps s so that each signature is checked under s.Public before
// the caller sees it. A device that returns a bad one gives ErrBadSignature.
func Verified(s Signer) Signer { return verified{s} }

type verified struct{ Signer }

func (v verified) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := v.Signer.Sign(ctx, message)
	if err != nil {
		return nil, err
	}
	if err := Verify(v.Algorithm(), v.Public(), message, sig); err != nil {
		return nil, fmt.Errorf("%w (key %s)", ErrBadSignature, v.Public().KeyID())
	}
	return sig, nil
}
