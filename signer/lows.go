package signer

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// LowS rewrites an ASN.1 ECDSA signature so that S is at most half the order
// of the key's curve, in strict DER, as the protocol's signers emit it. Other
// keys' signatures come back as they are. The error wraps ErrBadSignature.
func LowS(key PublicKey, sig []byte) ([]byte, error) {
	public, ok := key.Key().(*ecdsa.PublicKey)
	if !ok {
		return sig, nil
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: not ASN.1", ErrBadSignature)
	}
	if other := new(big.Int).Sub(public.Params().N, rs.S); other.Cmp(rs.S) < 0 {
		rs.S = other
	}
	return asn1.Marshal(rs)
}
