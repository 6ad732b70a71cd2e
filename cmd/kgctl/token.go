package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// Numbers of PKCS #11 v3.0 that the binding does not name.
const (
	ckmEdwardsKeyPairGen = 0x1055
	ckkEdwards           = 0x40
)

// withToken runs do in a session of the one token that u names. login: with
// the PIN of u's pin-source, which is tried once. A call into a module cannot
// be cancelled: after tokenTimeout it is given up, and ends with the process.
func withToken(u pkcs11.URI, login bool, do func(*p11.Ctx, p11.SessionHandle) error) error {
	return guarded(tokenTimeout, func() error { return inToken(u, login, do) })
}

// tokenTimeout leaves time for a smartcard to make an RSA key.
const tokenTimeout = 2 * time.Minute

// guarded gives up on a call that does not come back.
func guarded(limit time.Duration, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return hardwareError{fmt.Errorf("%w: the module has not answered for %s; unplug the token and plug it in again", signer.ErrUnavailable, limit)}
	}
}

func inToken(u pkcs11.URI, login bool, do func(*p11.Ctx, p11.SessionHandle) error) error {
	c := p11.New(u.ModulePath)
	if c == nil {
		return hardwareError{fmt.Errorf("%w: the module %s does not load", signer.ErrUnavailable, u.ModulePath)}
	}
	defer c.Destroy()
	if err := c.Initialize(); err != nil {
		return hardwareError{err}
	}
	defer c.Finalize()
	slot, err := findToken(c, u)
	if err != nil {
		return hardwareError{err}
	}
	session, err := c.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return hardwareError{err}
	}
	defer c.CloseSession(session)
	if login {
		if err := loginOnce(c, session, u); err != nil {
			return err
		}
	}
	if err := do(c, session); err != nil {
		return hardwareError{err}
	}
	return nil
}

func findToken(c *p11.Ctx, u pkcs11.URI) (uint, error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	var found []uint
	for _, s := range slots {
		info, err := c.GetTokenInfo(s)
		if err != nil || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		if matches(u.Token, info.Label) && matches(u.Serial, info.SerialNumber) && (u.SlotID == nil || *u.SlotID == s) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%w: %d tokens fit the URI, where one must; name it by token= or serial=", signer.ErrKey, len(found))
	}
	return found[0], nil
}

func matches(want, is string) bool { return want == "" || want == strings.TrimRight(is, " ") }

func loginOnce(c *p11.Ctx, session p11.SessionHandle, u pkcs11.URI) error {
	if u.PINSource.IsZero() {
		return usagef("the key's URI has no pin-source: add pin-source=file:/path or pin-source=env:NAME")
	}
	pin, err := u.PINSource.Read()
	if err != nil {
		return err
	}
	err = c.Login(session, p11.CKU_USER, string(pin))
	clear(pin)
	if err != nil {
		return fmt.Errorf("%w: %w", signer.ErrPIN, err)
	}
	return nil
}

func generateInToken(u pkcs11.URI) error {
	if u.Object == "" || len(u.ID) == 0 {
		return usagef("a new key's URI has object= and id=, which name it in the token")
	}
	mechanism, kind, parameters, err := keyPairOf(u.Algorithm)
	if err != nil {
		return err
	}
	common := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_KEY_TYPE, kind), p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_LABEL, u.Object), p11.NewAttribute(p11.CKA_ID, u.ID),
	}
	public := append(common[:len(common):len(common)], p11.NewAttribute(p11.CKA_VERIFY, true))
	public = append(public, parameters...)
	private := append(common[:len(common):len(common)],
		p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), p11.NewAttribute(p11.CKA_SIGN, true))
	return withToken(u, true, func(c *p11.Ctx, session p11.SessionHandle) error {
		taken, err := objects(c, session, p11.NewAttribute(p11.CKA_ID, u.ID))
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			return errors.New("the token has a key with this id already: choose another id=")
		}
		_, _, err = c.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, public, private)
		return err
	})
}

// keyPairOf is how a token makes a key pair: EC parameters are DER OIDs.
func keyPairOf(a signer.Algorithm) (mechanism, kind uint, parameters []*p11.Attribute, err error) {
	ec := func(oid ...byte) []*p11.Attribute {
		return []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, append([]byte{6, byte(len(oid))}, oid...))}
	}
	switch a {
	case signer.ECDSAP256SHA256:
		return p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, ec(0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7), nil
	case signer.ECDSAP384SHA384:
		return p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, ec(0x2b, 0x81, 4, 0, 0x22), nil
	case signer.Ed25519:
		return ckmEdwardsKeyPairGen, ckkEdwards, ec(0x2b, 0x65, 0x70), nil
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKK_RSA, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_MODULUS_BITS, 3072), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}, nil
	}
	return 0, 0, nil, usagef("unknown algorithm %q; see kgctl key generate --help", a)
}

// objects finds at most 256 objects.
func objects(c *p11.Ctx, session p11.SessionHandle, like ...*p11.Attribute) ([]p11.ObjectHandle, error) {
	if err := c.FindObjectsInit(session, like); err != nil {
		return nil, err
	}
	found, _, err := c.FindObjects(session, 256)
	return found, errors.Join(err, c.FindObjectsFinal(session))
}
