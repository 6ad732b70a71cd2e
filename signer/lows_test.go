package signer_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
)

func TestLowS(t *testing.T) {
	private := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	public := must(signer.NewPublicKey(&private.PublicKey))
	n := private.Params().N
	type pair struct{ R, S *big.Int }
	sig := must(ecdsa.SignASN1(rand.Reader, private, signer.Digest(signer.ECDSAP384SHA384, message)))
	var rs pair
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		t.Fatal(err)
	}
	other := must(asn1.Marshal(pair{rs.R, new(big.Int).Sub(n, rs.S)}))
	a, b := must(signer.LowS(public, sig)), must(signer.LowS(public, other))
	if !bytes.Equal(a, b) {
		t.Fatal("S and n-S give two signatures")
	}
	if _, err := asn1.Unmarshal(a, &rs); err != nil || rs.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		t.Fatalf("S is high: %v", err)
	}
	if err := signer.Verify(signer.ECDSAP384SHA384, public, message, a); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, {0x30}, append(bytes.Clone(sig), 0), bytes.Repeat([]byte{1}, 64)} {
		if got, err := signer.LowS(public, bad); !errors.Is(err, signer.ErrBadSignature) || got != nil {
			t.Errorf("%x: got %v, want ErrBadSignature", bad, err)
		}
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(signer.LowS(must(signer.NewPublicKey(edPublic)), sig)); !bytes.Equal(got, sig) {
		t.Fatal("another algorithm's signature was changed")
	}
}
