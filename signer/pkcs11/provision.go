package pkcs11

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// generateTimeout leaves a smartcard time to make an RSA key.
const generateTimeout = 2 * time.Minute

// ckmECEdwardsKeyPairGen is PKCS #11 v3.0's; the binding does not name it.
const ckmECEdwardsKeyPairGen = 0x1055

// rsaBits is the size of RSA keys that GenerateKey makes.
const rsaBits = 3072

// maxListed bounds how many keys ListKeys tells.
const maxListed = 1024

// StoredKey is a private key in a token, as ListKeys tells it.
type StoredKey struct {
	Label string // CKA_LABEL
	ID    []byte // CKA_ID
}

// ListKeys tells the private keys that u matches, of one token. It logs in by
// the rules of Open, whose errors it has.
func ListKeys(ctx context.Context, u URI, opts Options) ([]StoredKey, error) {
	keys := []StoredKey{}
	err := inToken(ctx, u, opts, 0, func(c *p11.Ctx, session p11.SessionHandle) error {
		found, err := findObjects(c, session, maxListed+1, privateKey(u.Object, u.ID)...)
		if err != nil {
			return err
		}
		if len(found) > maxListed {
			return keyError("the token has more than %d private keys: narrow them down by object= or id= in the URI", maxListed)
		}
		for _, object := range found {
			label, _, err := attribute(c, session, object, p11.CKA_LABEL)
			if err != nil {
				return err
			}
			id, _, err := attribute(c, session, object, p11.CKA_ID)
			if err != nil {
				return err
			}
			keys = append(keys, StoredKey{string(label), id})
		}
		return nil
	})
	return keys, err
}

// GenerateKey makes the key pair that u names, by object, id and algorithm,
// in its token, which the private key never leaves. An id that is taken is
// refused. It logs in by the rules of Open, whose errors it has.
func GenerateKey(ctx context.Context, u URI, opts Options) error {
	if u.Object == "" || len(u.ID) == 0 {
		return keyError("a new key's URI has object= and id=, which name it in the token")
	}
	generate, kind, parameters, err := keyPair(u.Algorithm)
	if err != nil {
		return err
	}
	opts.CallTimeout = max(opts.CallTimeout, generateTimeout)
	common := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_KEY_TYPE, kind), p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_LABEL, u.Object), p11.NewAttribute(p11.CKA_ID, u.ID),
	}
	public := append(common[:len(common):len(common)], p11.NewAttribute(p11.CKA_VERIFY, true))
	public = append(public, parameters...)
	private := append(common[:len(common):len(common)],
		p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), p11.NewAttribute(p11.CKA_SIGN, true))
	return inToken(ctx, u, opts, p11.CKF_RW_SESSION, func(c *p11.Ctx, session p11.SessionHandle) error {
		taken, err := findObjects(c, session, 1, p11.NewAttribute(p11.CKA_ID, u.ID))
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			return keyError("the token has an object with id=%s already: choose another id=", escapeAll(u.ID))
		}
		_, _, err = c.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(generate, nil)}, public, private)
		if err != nil && least(err) == tierNone {
			return keyError("the token makes no key for %s so (%w): make it with the device's own tool, as docs/keys says", u.Algorithm, err)
		}
		return err
	})
}

// keyPair is how a token makes a key pair: mechanism, key type, and what the
// public key's template has besides.
func keyPair(a signer.Algorithm) (generate, kind uint, parameters []*p11.Attribute, err error) {
	curve := func(oid ...int) []*p11.Attribute {
		der, _ := asn1.Marshal(asn1.ObjectIdentifier(oid)) // of constants
		return []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, der)}
	}
	switch a {
	case signer.ECDSAP256SHA256:
		return p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, curve(1, 2, 840, 10045, 3, 1, 7), nil
	case signer.ECDSAP384SHA384:
		return p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, curve(1, 3, 132, 0, 34), nil
	case signer.Ed25519:
		return ckmECEdwardsKeyPairGen, ckkECEdwards, curve(1, 3, 101, 112), nil
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKK_RSA, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_MODULUS_BITS, rsaBits), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}, nil
	}
	return 0, 0, nil, keyError("no key is made for algorithm %q", a)
}

// inToken runs do in a session of the one token that u names, logged in.
// flags are the session's beside CKF_SERIAL_SESSION. It returns by ctx's end,
// whatever the module does.
func inToken(ctx context.Context, u URI, opts Options, flags uint, do func(*p11.Ctx, p11.SessionHandle) error) error {
	opts = opts.withDefaults()
	done := make(chan error, 1)
	go func() { done <- doInToken(ctx, u, opts, flags, do) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return lateError(ctx)
	}
}

func doInToken(ctx context.Context, u URI, opts Options, flags uint, do func(*p11.Ctx, p11.SessionHandle) error) error {
	m, err := acquireModule(u.ModulePath)
	if err != nil {
		return err
	}
	defer m.release()
	t, err := openToken(m, u, opts)
	if err != nil {
		return err
	}
	defer t.leave()
	m.life.RLock()
	defer m.life.RUnlock()
	defer m.end(m.watch(opts.CallTimeout, opts.OnStuck))
	t.unlatch() // a person's act, as Open is
	gen, err := t.current(newPINReader(context.WithoutCancel(ctx), u.PINSource, opts.PIN))
	if err != nil {
		return explain(err, t.id.label, u.Algorithm)
	}
	session, err := m.c.OpenSession(gen.slot, p11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return explain(fmt.Errorf("open a session: %w", err), t.id.label, u.Algorithm)
	}
	err = do(m.c, session)
	if e := m.c.CloseSession(session); e != nil {
		err = errors.Join(err, fmt.Errorf("close the session: %w", e))
	}
	if err != nil {
		return explain(err, t.id.label, u.Algorithm)
	}
	return nil
}
