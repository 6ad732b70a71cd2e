package softhsm

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// rsaBits is the size of RSA keys that are generated.
const rsaBits = 2048

// Key is a key pair in a token.
type Key struct {
	URI    pkcs11.URI // with pin-source, id and algorithm; URI.Text for configuration
	Public signer.PublicKey
}

// GenerateKey makes a key pair that stays in the token, for one algorithm.
// id is CKA_ID, of at least one byte.
func (t *Token) GenerateKey(label string, id []byte, algorithm signer.Algorithm) (*Key, error) {
	if len(id) == 0 || label == "" {
		return nil, errors.New("softhsm: a key has a label and an id")
	}
	u := pkcs11.URI{Token: t.Label, Serial: t.Serial, Object: label, ID: id, ModulePath: t.env.Module,
		PINSource: pkcs11.FilePIN(t.PINFile), Algorithm: algorithm}
	made, err := t.generate(u)
	if err != nil {
		return nil, fmt.Errorf("softhsm: generate %s key %q in token %q: %w", algorithm, label, t.Label, err)
	}
	// Opened once, so that a URI that does not work is found here.
	s, err := pkcs11.Open(context.Background(), u, pkcs11.Options{})
	if err != nil {
		return nil, fmt.Errorf("softhsm: open the new key: %w", err)
	}
	defer s.Close()
	if made != nil {
		want, err := signer.NewPublicKey(made)
		if err != nil {
			return nil, fmt.Errorf("softhsm: %w", err)
		}
		if !want.Equal(s.Public()) {
			return nil, fmt.Errorf("softhsm: %s leads to another key than the one just made", u)
		}
	}
	return &Key{URI: u, Public: s.Public()}, nil
}

// generate returns the new public key, or nil where the library does not tell.
func (t *Token) generate(u pkcs11.URI) (crypto.PublicKey, error) {
	if u.Algorithm == signer.Ed25519 {
		return nil, pkcs11.GenerateKey(context.Background(), u, pkcs11.Options{})
	}
	pin, err := t.PIN()
	if err != nil {
		return nil, err
	}
	c, err := crypto11.Configure(&crypto11.Config{Path: t.env.Module, TokenSerial: t.Serial, Pin: pin})
	if err != nil {
		return nil, fmt.Errorf("%w (keys are made before signers are opened in the same process)", err)
	}
	defer c.Close()
	var made crypto11.Signer
	switch u.Algorithm {
	case signer.ECDSAP256SHA256:
		made, err = c.GenerateECDSAKeyPairWithLabel(u.ID, []byte(u.Object), elliptic.P256())
	case signer.ECDSAP384SHA384:
		made, err = c.GenerateECDSAKeyPairWithLabel(u.ID, []byte(u.Object), elliptic.P384())
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		made, err = c.GenerateRSAKeyPairWithLabel(u.ID, []byte(u.Object), rsaBits)
	default:
		return nil, errors.New("no such algorithm")
	}
	if err != nil {
		return nil, err
	}
	return made.Public(), nil
}
