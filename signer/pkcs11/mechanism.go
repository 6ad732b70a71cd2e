package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// ckmEdDSA is PKCS #11 v3.0's; the binding does not name it.
const ckmEdDSA = 0x1057

// sha256Info is the DER that stands before a SHA-256 digest in a DigestInfo
// (RFC 8017, section 9.2, note 1): CKM_RSA_PKCS pads, but does not wrap.
var sha256Info = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

// mechanism is the PKCS #11 mechanism of an algorithm. All but EdDSA sign a
// digest made here: tokens differ in what they hash and how long it may be.
func mechanism(a signer.Algorithm) *p11.Mechanism {
	switch a {
	case signer.ECDSAP256SHA256, signer.ECDSAP384SHA384:
		return p11.NewMechanism(p11.CKM_ECDSA, nil)
	case signer.Ed25519:
		return p11.NewMechanism(ckmEdDSA, nil)
	case signer.RSAPSSSHA256:
		return p11.NewMechanism(p11.CKM_RSA_PKCS_PSS, p11.NewPSSParams(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, signer.PSSSaltLength))
	}
	return p11.NewMechanism(p11.CKM_RSA_PKCS, nil)
}

// mechanismName is for errors.
func mechanismName(m *p11.Mechanism) string {
	switch m.Mechanism {
	case p11.CKM_ECDSA:
		return "CKM_ECDSA"
	case ckmEdDSA:
		return "CKM_EDDSA"
	case p11.CKM_RSA_PKCS_PSS:
		return "CKM_RSA_PKCS_PSS"
	}
	return "CKM_RSA_PKCS"
}

// input is what the mechanism is given to sign message: bytes of our own, as
// a call that outlives its caller still reads them.
func input(a signer.Algorithm, message []byte) []byte {
	switch a {
	case signer.Ed25519:
		return bytes.Clone(message)
	case signer.RSAPKCS1SHA256:
		return append(bytes.Clone(sha256Info), signer.Digest(a, message)...)
	}
	return signer.Digest(a, message)
}

// output turns what the mechanism returned into the protocol's encoding:
// ECDSA's r||s becomes DER with low S.
func output(key signer.PublicKey, raw []byte) ([]byte, error) {
	public, ok := key.Key().(*ecdsa.PublicKey)
	if !ok {
		return raw, nil
	}
	size := (public.Params().N.BitLen() + 7) / 8
	half := len(raw) / 2
	if len(raw) == 0 || len(raw)%2 != 0 || half > size {
		return nil, fmt.Errorf("%w: ECDSA signature of %d bytes is not r and s", signer.ErrBadSignature, len(raw))
	}
	body := appendInteger(make([]byte, 2, len(raw)+8), raw[:half])
	body = appendInteger(body, lowS(public.Params().N, raw[half:], size))
	body[0], body[1] = 0x30, byte(len(body)-2) // at most 102 bytes: a short length
	return body, nil
}

// maxOrder is the size of P-384's order in bytes.
const maxOrder = 48

// lowS is the smaller of s and n-s, in size bytes: -s signs too, and the
// protocol's signers emit the smaller. It is plain arithmetic on bytes, as big
// integers take a fiftieth of a signature's time.
func lowS(n *big.Int, s []byte, size int) []byte {
	var padded, other [maxOrder]byte
	n.FillBytes(other[:size])
	copy(padded[size-len(s):size], s)
	borrow := 0
	for i := size - 1; i >= 0; i-- {
		digit := int(other[i]) - int(padded[i]) - borrow
		borrow = digit >> 8 & 1
		other[i] = byte(digit)
	}
	// Neither s = n nor s > n is a signature; Verify refuses them.
	if borrow == 0 && other != [maxOrder]byte{} && bytes.Compare(other[:size], padded[:size]) < 0 {
		return other[:size]
	}
	return padded[:size]
}

// appendInteger appends a DER INTEGER of at most 127 bytes.
func appendInteger(der, value []byte) []byte {
	value = bytes.TrimLeft(value, "\x00")
	if len(value) == 0 || value[0] >= 0x80 {
		der = append(der, 0x02, byte(len(value)+1), 0)
	} else {
		der = append(der, 0x02, byte(len(value)))
	}
	return append(der, value...)
}

// checkMechanism says in plain words when a token cannot sign so.
func checkMechanism(c *p11.Ctx, slot uint, a signer.Algorithm) error {
	m := mechanism(a)
	offered, err := c.GetMechanismList(slot)
	if err != nil {
		return fmt.Errorf("list the token's mechanisms: %w", err)
	}
	for _, o := range offered {
		if o.Mechanism == m.Mechanism {
			return nil
		}
	}
	hint := ""
	if a == signer.RSAPSSSHA256 {
		hint = "; for a card without PSS register the key with algorithm=" + string(signer.RSAPKCS1SHA256)
	}
	return keyError("%w %s, which %s needs%s", errNoMechanism, mechanismName(m), a, hint)
}
