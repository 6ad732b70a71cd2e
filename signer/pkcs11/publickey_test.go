package pkcs11

import (
	"crypto"
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

func der(t *testing.T, value any, params string) []byte {
	t.Helper()
	b, err := asn1.MarshalWithParams(value, params)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPointEncodings: every way that devices write curve and point.
func TestPointEncodings(t *testing.T) {
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	wrappings := map[string]func([]byte) []byte{
		"raw":          func(b []byte) []byte { return b },
		"OCTET STRING": func(b []byte) []byte { return der(t, b, "") },
		"BIT STRING":   func(b []byte) []byte { return der(t, asn1.BitString{Bytes: b, BitLength: 8 * len(b)}, "") },
	}
	for name, wrap := range wrappings {
		for _, params := range [][]byte{der(t, asn1.ObjectIdentifier{1, 3, 101, 112}, ""), der(t, "edwards25519", "printable")} {
			if got, ok := decodeEdwards(params, wrap(edwards)).(ed25519.PublicKey); !ok || !got.Equal(edwards) {
				t.Errorf("Ed25519, %s, params %x: got %v", name, params, got)
			}
		}
		for _, params := range [][]byte{der(t, asn1.ObjectIdentifier{1, 3, 132, 0, 34}, ""), der(t, "secp384r1", "printable")} {
			if got, ok := decodeEC(params, wrap(point)).(*ecdsa.PublicKey); !ok || !got.Equal(&private.PublicKey) {
				t.Errorf("P-384, %s, params %x: got %v", name, params, got)
			}
		}
	}
}

func TestPointsThatAreNone(t *testing.T) {
	p256 := der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, "")
	for name, got := range map[string]crypto.PublicKey{
		"no params":      decodeEC(nil, make([]byte, 65)),
		"no point":       decodeEC(p256, nil),
		"off the curve":  decodeEC(p256, append([]byte{4}, make([]byte, 64)...)),
		"other curve":    decodeEC(der(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10}, ""), make([]byte, 65)),
		"short Ed25519":  decodeEdwards(der(t, "edwards25519", "printable"), make([]byte, 31)),
		"Ed448":          decodeEdwards(der(t, "edwards448", "printable"), make([]byte, 32)),
		"no RSA modulus": decodeRSA(nil, []byte{1, 0, 1}),
		"huge exponent":  decodeRSA([]byte{1}, []byte{255, 255, 255, 255, 255, 255, 255, 255}),
	} {
		if got != nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestOutputIsStrictLowS(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("m")
	n, low, high := elliptic.P256().Params().N, 0, 0
	for range 40 {
		r, s, err := ecdsa.Sign(rand.Reader, private, signer.Digest(signer.ECDSAP256SHA256, message))
		if err != nil {
			t.Fatal(err)
		}
		isHigh := new(big.Int).Lsh(s, 1).Cmp(n) > 0
		sig, err := output(key, append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
		if err != nil {
			t.Fatal(err)
		}
		if err := signer.Verify(signer.ECDSAP256SHA256, key, message, sig); err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &rs); err != nil || new(big.Int).Lsh(rs.S, 1).Cmp(n) > 0 {
			t.Fatalf("high S came out: %v", err)
		}
		if isHigh {
			high++
		} else {
			low++
		}
	}
	if low == 0 || high == 0 {
		t.Fatalf("%d low, %d high: both should have been met", low, high)
	}
	for _, raw := range [][]byte{nil, make([]byte, 63), make([]byte, 66)} {
		if _, err := output(key, raw); !errors.Is(err, signer.ErrBadSignature) {
			t.Errorf("%d bytes: got %v, want ErrBadSignature", len(raw), err)
		}
	}
}

// TestLowSIsArithmetic compares with big integers, at the borders too.
func TestLowSIsArithmetic(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		n := curve.Params().N
		size := (n.BitLen() + 7) / 8
		one := big.NewInt(1)
		half := new(big.Int).Rsh(n, 1)
		values := []*big.Int{big.NewInt(0), one, half, new(big.Int).Add(half, one), new(big.Int).Sub(n, one), n, new(big.Int).Add(n, one)}
		for range 200 {
			s, err := rand.Int(rand.Reader, n)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, s)
		}
		for _, s := range values {
			want := s
			if other := new(big.Int).Sub(n, s); other.Sign() > 0 && other.Cmp(s) < 0 {
				want = other
			}
			for _, given := range [][]byte{s.Bytes(), s.FillBytes(make([]byte, size))} {
				if got := new(big.Int).SetBytes(lowS(n, given, size)); got.Cmp(want) != 0 {
					t.Fatalf("s = %x: got %x, want %x", s, got, want)
				}
			}
		}
	}
}
