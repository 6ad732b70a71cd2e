package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// signTimeout leaves time to touch a smartcard.
const signTimeout = 60 * time.Second

// tokenPause is how long a token that is not there is given to come back.
const tokenPause = 300 * time.Millisecond

// openKey says which key is about to be used, without its secrets, and opens it.
func (a *app) openKey(ctx context.Context, uri string) (signer.Signer, error) {
	name, err := redacted(uri)
	if err != nil {
		return nil, err
	}
	a.say("Using key %s", name)
	if strings.HasPrefix(uri, pkcs11.Scheme) {
		a.say("Keep the token connected; touch it if it blinks.")
	}
	s, err := open.Open(ctx, uri, open.Options{PIN: a.askPIN})
	if !strings.HasPrefix(uri, pkcs11.Scheme) || !errors.Is(err, signer.ErrUnavailable) || errors.Is(err, pkcs11.ErrLogin) {
		return s, err
	}
	// A token is away for a moment while a reader is plugged in again, and
	// SoftHSM2's while another process writes to it. No PIN was sent.
	select {
	case <-ctx.Done():
		return nil, err
	case <-time.After(tokenPause):
	}
	return open.Open(ctx, uri, open.Options{PIN: a.askPIN})
}

// redacted is a key's URI as it may be shown.
func redacted(uri string) (string, error) {
	u, err := open.Parse(uri)
	if err != nil {
		return "", usageError{err}
	}
	return u.String(), nil
}

// originOf is where the registry says that a key lies.
func originOf(uri string) keyregistry.Origin {
	switch {
	case strings.HasPrefix(uri, awskms.Scheme):
		return keyregistry.OriginAWSKMS
	case strings.HasPrefix(uri, gcpkms.Scheme):
		return keyregistry.OriginGCPKMS
	case strings.HasPrefix(uri, filekey.Scheme):
		return keyregistry.OriginFile
	}
	return keyregistry.OriginPKCS11
}
