// Package filekey signs with a private key in a file, for development and
// tests only. The key lies in the open on a disk, is loaded into memory, and
// can be copied by whoever reads either: nothing that matters is signed with it.
package filekey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/kernelgate/kernelgate/signer"
)

// New makes a Signer of a private key in memory, checked by signer.Verified.
// algorithm "" is the key's default. It is for tests.
func New(private crypto.Signer, algorithm signer.Algorithm) (signer.Signer, error) {
	public, err := signer.NewPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", signer.ErrKey, err)
	}
	if algorithm == "" {
		algorithm = signer.DefaultAlgorithm(public.Key())
	}
	if !algorithm.Fits(public.Key()) {
		return nil, fmt.Errorf("%w: algorithm %s does not fit the key", signer.ErrKey, algorithm)
	}
	return signer.Verified(&key{private: private, public: public, algorithm: algorithm}), nil
}

// Open reads the key that u names.
func Open(u URI) (signer.Signer, error) {
	private, err := readKey(u.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", signer.ErrKey, err)
	}
	return New(private, u.Algorithm)
}

type key struct {
	private   crypto.Signer
	public    signer.PublicKey
	algorithm signer.Algorithm
	closed    atomic.Bool
}

func (k *key) Public() signer.PublicKey    { return k.public }
func (k *key) Algorithm() signer.Algorithm { return k.algorithm }

// Sign keeps to what hardware can do, so that what works in development works
// with a token.
func (k *key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if k.closed.Load() {
		return nil, fmt.Errorf("file key: %w", os.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnavailable, err)
	}
	if err := signer.CheckHardwareMessage(k.algorithm, message); err != nil {
		return nil, err
	}
	sig, err := k.private.Sign(rand.Reader, signer.Digest(k.algorithm, message), k.options())
	if err != nil {
		return nil, fmt.Errorf("file key: %w", err)
	}
	return signer.LowS(k.public, sig)
}

func (k *key) options() crypto.SignerOpts {
	if k.algorithm == signer.RSAPSSSHA256 {
		return &rsa.PSSOptions{SaltLength: signer.PSSSaltLength, Hash: crypto.SHA256}
	}
	return k.algorithm.Hash()
}

func (k *key) Close() error {
	k.closed.Store(true)
	return nil
}

// newKey makes a private key that fits the algorithm; RSA has 2048 bits.
func newKey(algorithm signer.Algorithm) (crypto.Signer, error) {
	switch algorithm {
	case signer.ECDSAP256SHA256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case signer.ECDSAP384SHA384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case signer.Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, errors.New("no such algorithm")
}
