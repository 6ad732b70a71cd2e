package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// signTimeout leaves time to touch a smartcard.
const signTimeout = 60 * time.Second

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
	return open.Open(ctx, uri, open.Options{PIN: noPIN})
}

// noPIN: PINs come from the URI's pin-source and are never typed into kgctl.
func noPIN(context.Context, string) ([]byte, error) {
	return nil, errors.New("the key's URI has no pin-source: add pin-source=file:/path or pin-source=env:NAME")
}

func redacted(uri string) (string, error) {
	switch {
	case strings.HasPrefix(uri, pkcs11.Scheme):
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			return "", usageError{err}
		}
		return u.String(), nil
	case strings.HasPrefix(uri, filekey.Scheme):
		u, err := filekey.ParseURI(uri)
		if err != nil {
			return "", usageError{err}
		}
		return u.String(), nil
	}
	return "", usagef("a key's URI begins with one of: %s", strings.Join(open.Schemes(), " "))
}
