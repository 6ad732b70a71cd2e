package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// ckkECEdwards is PKCS #11 v3.0's; the binding does not name it.
const ckkECEdwards = 0x40

// readPublicKey finds the public half of a private key: in a public key object
// with the same CKA_ID (or label, where the key has no id), in a certificate
// with the same CKA_ID, or in the private key's own attributes.
func readPublicKey(c *p11.Ctx, session p11.SessionHandle, private p11.ObjectHandle, label, id []byte) (signer.PublicKey, error) {
	keyType, err := keyTypeOf(c, session, private)
	if err != nil {
		return signer.PublicKey{}, err
	}
	found, err := publicCandidates(c, session, label, id)
	if err != nil {
		return signer.PublicKey{}, err
	}
	var key signer.PublicKey
	problem := errors.New("it has no public key object or certificate with the same CKA_ID; store one beside it")
	for _, object := range append(found, private) {
		raw, err := decodeObject(c, session, object, keyType)
		if err != nil {
			return signer.PublicKey{}, err
		}
		if raw == nil {
			continue
		}
		next, err := signer.NewPublicKey(raw)
		if err != nil {
			problem = err
			continue
		}
		if !key.IsZero() && !key.Equal(next) {
			return signer.PublicKey{}, keyError("different public keys belong to %q (id=%s): %s and %s", label, escapeAll(id), key.KeyID(), next.KeyID())
		}
		key = next
	}
	if key.IsZero() {
		return key, keyError("%q (id=%s): %w", label, escapeAll(id), problem)
	}
	return key, nil
}

func keyTypeOf(c *p11.Ctx, session p11.SessionHandle, object p11.ObjectHandle) (uint64, error) {
	value, ok, err := attribute(c, session, object, p11.CKA_KEY_TYPE)
	if err != nil {
		return 0, err
	}
	if !ok || len(value) != 8 {
		return 0, keyError("the private key does not tell its type")
	}
	return binary.NativeEndian.Uint64(value), nil
}

// publicCandidates are the public keys and X.509 certificates that go with
// the id, or, without an id, the public keys with the label.
func publicCandidates(c *p11.Ctx, session p11.SessionHandle, label, id []byte) ([]p11.ObjectHandle, error) {
	same := p11.NewAttribute(p11.CKA_ID, id)
	if len(id) == 0 {
		if len(label) == 0 {
			return nil, nil
		}
		same = p11.NewAttribute(p11.CKA_LABEL, label)
	}
	keys, err := findObjects(c, session, maxObjects, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), same)
	if err != nil || len(id) == 0 {
		return keys, err
	}
	certificates, err := findObjects(c, session, maxObjects, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE), same)
	return append(keys, certificates...), err
}

// decodeObject reads the public key that an object holds, whatever its class;
// nil where it holds none. keyType is the private key's.
func decodeObject(c *p11.Ctx, session p11.SessionHandle, object p11.ObjectHandle, keyType uint64) (crypto.PublicKey, error) {
	read := func(kind uint) (value []byte) {
		if value, _, readErr := attribute(c, session, object, kind); readErr == nil {
			return value
		}
		return nil
	}
	class, _, err := attribute(c, session, object, p11.CKA_CLASS)
	if err != nil {
		return nil, err
	}
	if len(class) == 8 && binary.NativeEndian.Uint64(class) == p11.CKO_CERTIFICATE {
		certificate, err := x509.ParseCertificate(read(p11.CKA_VALUE))
		if err != nil {
			return nil, nil //nolint:nilerr // a broken certificate is no candidate
		}
		return certificate.PublicKey, nil
	}
	var key crypto.PublicKey
	switch keyType {
	case p11.CKK_RSA:
		key = decodeRSA(read(p11.CKA_MODULUS), read(p11.CKA_PUBLIC_EXPONENT))
	case p11.CKK_EC:
		key = decodeEC(read(p11.CKA_EC_PARAMS), read(p11.CKA_EC_POINT))
	case ckkECEdwards:
		key = decodeEdwards(read(p11.CKA_EC_PARAMS), read(p11.CKA_EC_POINT))
	}
	if key == nil {
		if spki := read(p11.CKA_PUBLIC_KEY_INFO); spki != nil {
			if parsed, err := x509.ParsePKIXPublicKey(spki); err == nil {
				return parsed, nil
			}
		}
	}
	return key, nil
}

func decodeRSA(modulus, exponent []byte) crypto.PublicKey {
	e := new(big.Int).SetBytes(exponent)
	if len(modulus) == 0 || len(exponent) == 0 || e.BitLen() > 31 {
		return nil
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}
}

// curveName reads CKA_EC_PARAMS: an OBJECT IDENTIFIER, or the curve's name as
// a PrintableString, as PKCS #11 v3.0 has it for Edwards curves.
func curveName(params []byte) string {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err == nil && len(rest) == 0 {
		return oid.String()
	}
	var name string
	if rest, err := asn1.UnmarshalWithParams(params, &name, "printable"); err == nil && len(rest) == 0 {
		return name
	}
	return ""
}

// pointBytes takes CKA_EC_POINT as the standard has it, wrapped in an OCTET
// STRING, as some devices do, wrapped in a BIT STRING, or raw. size is the
// raw point's length in bytes, which tells them apart.
func pointBytes(point []byte, size int) []byte {
	if len(point) == size {
		return point
	}
	var octets []byte
	if rest, err := asn1.Unmarshal(point, &octets); err == nil && len(rest) == 0 && len(octets) == size {
		return octets
	}
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(point, &bits); err == nil && len(rest) == 0 && bits.BitLength == 8*size {
		return bits.Bytes
	}
	return nil
}

func decodeEC(params, point []byte) crypto.PublicKey {
	var curve elliptic.Curve
	switch curveName(params) {
	case "1.2.840.10045.3.1.7", "secp256r1", "prime256v1", "P-256":
		curve = elliptic.P256()
	case "1.3.132.0.34", "secp384r1", "P-384":
		curve = elliptic.P384()
	default:
		return nil
	}
	raw := pointBytes(point, 1+2*((curve.Params().BitSize+7)/8))
	key, err := ecdsa.ParseUncompressedPublicKey(curve, raw)
	if err != nil {
		return nil
	}
	return key
}

func decodeEdwards(params, point []byte) crypto.PublicKey {
	switch curveName(params) {
	// The last is GnuPG's OID, from before RFC 8410.
	case "1.3.101.112", "edwards25519", "Ed25519", "1.3.6.1.4.1.11591.15.1":
	default:
		return nil
	}
	raw := pointBytes(point, ed25519.PublicKeySize)
	if raw == nil {
		return nil
	}
	return ed25519.PublicKey(bytes.Clone(raw))
}
