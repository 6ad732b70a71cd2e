package softhsm

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// PKCS #11 v3.0 numbers that the binding does not name, and the OID of
// Ed25519 (RFC 8410) in DER.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckkECEdwards           = 0x40
)

var oidEd25519 = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}

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
	made, err := t.generate(label, id, algorithm)
	if err != nil {
		return nil, fmt.Errorf("softhsm: generate %s key %q in token %q: %w", algorithm, label, t.Label, err)
	}
	u := pkcs11.URI{Token: t.Label, Serial: t.Serial, Object: label, ID: id, ModulePath: t.env.Module,
		PINSource: pkcs11.FilePIN(t.PINFile), Algorithm: algorithm}
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
func (t *Token) generate(label string, id []byte, algorithm signer.Algorithm) (crypto.PublicKey, error) {
	pin, err := t.PIN()
	if err != nil {
		return nil, err
	}
	if algorithm == signer.Ed25519 {
		return nil, t.env.withModule(func(c *p11.Ctx) error { return t.generateEd25519(c, pin, label, id) })
	}
	c, err := crypto11.Configure(&crypto11.Config{Path: t.env.Module, TokenSerial: t.Serial, Pin: pin})
	if err != nil {
		return nil, fmt.Errorf("%w (keys are made before signers are opened in the same process)", err)
	}
	defer c.Close()
	var made crypto11.Signer
	switch algorithm {
	case signer.ECDSAP256SHA256:
		made, err = c.GenerateECDSAKeyPairWithLabel(id, []byte(label), elliptic.P256())
	case signer.ECDSAP384SHA384:
		made, err = c.GenerateECDSAKeyPairWithLabel(id, []byte(label), elliptic.P384())
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		made, err = c.GenerateRSAKeyPairWithLabel(id, []byte(label), rsaBits)
	default:
		return nil, errors.New("no such algorithm")
	}
	if err != nil {
		return nil, err
	}
	return made.Public(), nil
}

func (t *Token) generateEd25519(c *p11.Ctx, pin, label string, id []byte) error {
	slot, err := t.slot(c)
	if err != nil {
		return err
	}
	session, err := c.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer c.CloseSession(session)
	if err := c.Login(session, p11.CKU_USER, pin); err != nil && !errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)) {
		return err
	}
	common := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_KEY_TYPE, ckkECEdwards),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_ID, id),
	}
	public := append(common[:len(common):len(common)],
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_EC_PARAMS, oidEd25519),
		p11.NewAttribute(p11.CKA_VERIFY, true))
	private := append(common[:len(common):len(common)],
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_SIGN, true))
	_, _, err = c.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(ckmECEdwardsKeyPairGen, nil)}, public, private)
	return err
}

func (t *Token) slot(c *p11.Ctx) (uint, error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, s := range slots {
		if info, err := c.GetTokenInfo(s); err == nil && info.SerialNumber == t.Serial {
			return s, nil
		}
	}
	return 0, errors.New("the token is not there")
}
