// Package open turns a key's URI into a signer, whatever the backend.
package open

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// Options are what a URI does not say. Backends ignore what is not theirs.
type Options struct {
	// KeyID, if set, is the key expected: another is refused (signer.ErrKey).
	KeyID string
	// PIN asks for a token's PIN where the URI has no pin-source.
	PIN func(ctx context.Context, token string) ([]byte, error)
	// CallTimeout is how long one call to the device may take; 0 is the backend's default.
	CallTimeout time.Duration
	// OnStuck is called when a call that cannot be cancelled outlasts
	// CallTimeout: a process that only signs should exit then.
	OnStuck func()
	// Inline: see pkcs11.Options.
	Inline bool
}

// Key is a parsed URI. Its String is the URI as it may be shown, without the
// pin-source.
type Key struct {
	fmt.Stringer
	open func(context.Context, Options) (signer.Signer, error)
}

// Parse parses the URI of a key, whatever its backend, and opens nothing.
func Parse(uri string) (Key, error) {
	switch {
	case strings.HasPrefix(uri, pkcs11.Scheme):
		u, err := pkcs11.ParseURI(uri)
		return Key{u, func(ctx context.Context, o Options) (signer.Signer, error) {
			return pkcs11.Open(ctx, u, pkcs11.Options{PIN: o.PIN, KeyID: o.KeyID, CallTimeout: o.CallTimeout, OnStuck: o.OnStuck, Inline: o.Inline})
		}}, err
	case strings.HasPrefix(uri, awskms.Scheme):
		u, err := awskms.ParseURI(uri)
		return Key{u, func(ctx context.Context, o Options) (signer.Signer, error) {
			return awskms.Open(ctx, u, awskms.Options{KeyID: o.KeyID, CallTimeout: o.CallTimeout})
		}}, err
	case strings.HasPrefix(uri, gcpkms.Scheme):
		u, err := gcpkms.ParseURI(uri)
		return Key{u, func(ctx context.Context, o Options) (signer.Signer, error) {
			return gcpkms.Open(ctx, u, gcpkms.Options{KeyID: o.KeyID, CallTimeout: o.CallTimeout})
		}}, err
	case strings.HasPrefix(uri, filekey.Scheme):
		u, err := filekey.ParseURI(uri)
		return Key{u, func(_ context.Context, o Options) (signer.Signer, error) {
			s, err := filekey.Open(u)
			if err != nil {
				return nil, err
			}
			return expect(s, o.KeyID)
		}}, err
	}
	schemes := []string{pkcs11.Scheme, awskms.Scheme, gcpkms.Scheme, filekey.Scheme}
	return Key{}, fmt.Errorf("a key's URI begins with one of: %s", strings.Join(schemes, " "))
}

// Open opens the key that uri names. What it returns checks each signature
// (signer.Verified). Errors never hold the URI's pin-source.
func Open(ctx context.Context, uri string, opts Options) (signer.Signer, error) {
	key, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	return key.open(ctx, opts)
}

// expect closes and refuses a signer whose key is not the one expected.
func expect(s signer.Signer, keyID string) (signer.Signer, error) {
	if keyID == "" || s.Public().KeyID() == keyID {
		return s, nil
	}
	defer s.Close()
	return nil, fmt.Errorf("%w: the file holds key %s, not %s, which is expected", signer.ErrKey, s.Public().KeyID(), keyID)
}
