package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"

	"filippo.io/edwards25519"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
)

type spki struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

var (
	oidEC, oidP256  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidRSA, oidEd   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.ObjectIdentifier{1, 3, 101, 112}
	null, emptySeq  = asn1.RawValue{FullBytes: []byte{5, 0}}, asn1.RawValue{FullBytes: []byte{0x30, 0}}
	noParameters    = asn1.RawValue{}
	message         = []byte("the message")
	torsionOrder2   = append(bytes.Repeat([]byte{0xff}, 31), 0x7f) // becomes -1 below
	identityEncoded = append([]byte{1}, make([]byte, 31)...)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func der(oid asn1.ObjectIdentifier, parameters asn1.RawValue, key []byte) []byte {
	return must(asn1.Marshal(spki{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: parameters}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}}))
}

// mixedOrder is B + T, where B generates the subgroup and T has order 2.
func mixedOrder() []byte {
	minusOne := append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...)
	t := must(new(edwards25519.Point).SetBytes(minusOne))
	return new(edwards25519.Point).Add(edwards25519.NewGeneratorPoint(), t).Bytes()
}

func rsaDER(parameters asn1.RawValue, n *big.Int, e int) []byte {
	return der(oidRSA, parameters, must(asn1.Marshal(struct {
		N *big.Int
		E int
	}{n, e})))
}

// modulus is an odd number of the given length; parsing never factors it.
func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.SetBit(n, 0, 1)
}

func TestParsePublicKey(t *testing.T) {
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	marshal := func(k any) []byte { return must(x509.MarshalPKIXPublicKey(k)) }
	good := marshal(&p256.PublicKey)
	point := must(p256.PublicKey.Bytes())
	compressed := elliptic.MarshalCompressed(elliptic.P256(), p256.X, p256.Y)
	hybrid := bytes.Clone(point)
	hybrid[0] = 6 + point[64]&1
	offCurve := bytes.Clone(point)
	offCurve[64] ^= 1
	named := asn1.RawValue{FullBytes: must(asn1.Marshal(oidP256))}
	longLength := append([]byte{0x30, 0x81}, good[1:]...)
	nonCanonical := append([]byte{0xee}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...) // p+1, y = 1
	cases := map[string]struct {
		der []byte
		ok  bool
	}{
		"P-256":                       {good, true},
		"P-384":                       {marshal(&p384.PublicKey), true},
		"Ed25519":                     {marshal(edPublic), true},
		"RSA-2048":                    {rsaDER(null, modulus(2048), 65537), true},
		"RSA-3072":                    {rsaDER(null, modulus(3072), 65537), true},
		"RSA-4096":                    {rsaDER(null, modulus(4096), 65537), true},
		"empty":                       {nil, false},
		"P-224":                       {marshal(&p224.PublicKey), false},
		"P-521":                       {marshal(&p521.PublicKey), false},
		"compressed":                  {der(oidEC, named, compressed), false},
		"hybrid":                      {der(oidEC, named, hybrid), false},
		"off the curve":               {der(oidEC, named, offCurve), false},
		"infinity":                    {der(oidEC, named, []byte{0}), false},
		"EC without parameters":       {der(oidEC, noParameters, point), false},
		"EC explicit parameters":      {der(oidEC, emptySeq, point), false},
		"trailing byte":               {append(bytes.Clone(good), 0), false},
		"length not minimal":          {longLength, false},
		"RSA without NULL":            {rsaDER(noParameters, modulus(2048), 65537), false},
		"RSA with other parameters":   {rsaDER(emptySeq, modulus(2048), 65537), false},
		"RSA-1024":                    {rsaDER(null, modulus(1024), 65537), false},
		"RSA-2047":                    {rsaDER(null, modulus(2047), 65537), false},
		"RSA-2049":                    {rsaDER(null, modulus(2049), 65537), false},
		"RSA-8192":                    {rsaDER(null, modulus(8192), 65537), false},
		"RSA e=3":                     {rsaDER(null, modulus(2048), 3), false},
		"RSA negative modulus":        {rsaDER(null, new(big.Int).Neg(modulus(2048)), 65537), false},
		"Ed25519 with NULL":           {der(oidEd, null, edPublic), false},
		"Ed25519 of 31 bytes":         {der(oidEd, noParameters, edPublic[:31]), false},
		"Ed25519 identity":            {der(oidEd, noParameters, identityEncoded), false},
		"Ed25519 order 4":             {der(oidEd, noParameters, make([]byte, 32)), false},
		"Ed25519 not canonical":       {der(oidEd, noParameters, nonCanonical), false},
		"Ed25519 field element high":  {der(oidEd, noParameters, torsionOrder2), false},
		"Ed25519 mixed order":         {der(oidEd, noParameters, mixedOrder()), false},
		"Ed25519 generator":           {der(oidEd, noParameters, edwards25519.NewGeneratorPoint().Bytes()), true},
		"longer than any":             {bytes.Repeat([]byte{0x30}, 1<<20), false},
		"private key":                 {must(x509.MarshalPKCS8PrivateKey(p256)), false},
		"X25519, another key's shape": {der(asn1.ObjectIdentifier{1, 3, 101, 110}, noParameters, edPublic), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			key, err := signer.ParsePublicKey(c.der)
			if c.ok != (err == nil) || !c.ok && failure.ClassOf(err) != failure.FieldInvalid {
				t.Fatalf("got %v, want accepted %v", err, c.ok)
			}
			if c.ok && !bytes.Equal(key.DER(), c.der) {
				t.Fatal("the key's DER is not what was parsed")
			}
		})
	}
}

func TestVerifyECDSA(t *testing.T) {
	for a, curve := range map[signer.Algorithm]elliptic.Curve{signer.ECDSAP256SHA256: elliptic.P256(), signer.ECDSAP384SHA384: elliptic.P384()} {
		private := must(ecdsa.GenerateKey(curve, rand.Reader))
		key := must(signer.NewPublicKey(&private.PublicKey))
		sig := must(private.Sign(rand.Reader, signer.Digest(a, message), a.Hash()))
		var rs struct{ R, S *big.Int }
		must(asn1.Unmarshal(sig, &rs))
		other := rs
		other.S = new(big.Int).Sub(curve.Params().N, rs.S)
		zero, big0 := rs, rs
		zero.S, big0.S = new(big.Int), new(big.Int).Add(rs.S, curve.Params().N)
		body := sig[2:]
		raw := append(rs.R.FillBytes(make([]byte, 48)), rs.S.FillBytes(make([]byte, 48))...)
		paddedR := append([]byte{2, sig[3] + 1, 0}, sig[4:]...)
		for name, c := range map[string]struct {
			sig []byte
			ok  bool
		}{
			"as signed":          {sig, true},
			"the other S":        {must(asn1.Marshal(other)), true},
			"S is 0":             {must(asn1.Marshal(zero)), false},
			"S over the order":   {must(asn1.Marshal(big0)), false},
			"length not minimal": {append([]byte{0x30, 0x81, byte(len(body))}, body...), false},
			"R padded":           {append([]byte{0x30, byte(len(paddedR))}, paddedR...), false},
			"trailing byte":      {append(bytes.Clone(sig), 0), false},
			"raw R and S":        {raw, false},
			"empty":              {nil, false},
		} {
			wantVerify(t, string(a)+" "+name, signer.Verify(a, key, message, c.sig), c.ok)
		}
		wantVerify(t, "other message", signer.Verify(a, key, []byte("another"), sig), false)
		wantVerify(t, "algorithm of another key", signer.Verify(signer.Ed25519, key, message, sig), false)
		wantVerify(t, "unknown algorithm", signer.Verify("none", key, message, sig), false)
		wantVerify(t, "no key", signer.Verify(a, signer.PublicKey{}, message, sig), false)
	}
}

func wantVerify(t *testing.T, name string, err error, ok bool) {
	t.Helper()
	if ok != (err == nil) || !ok && failure.ClassOf(err) != failure.SignatureInvalid {
		t.Errorf("%s: got %v, want accepted %v", name, err, ok)
	}
}

func TestVerifyRSA(t *testing.T) {
	private := must(rsa.GenerateKey(rand.Reader, 2048))
	key := must(signer.NewPublicKey(&private.PublicKey))
	digest := sha256.Sum256(message)
	pss := func(salt int) []byte {
		return must(rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt}))
	}
	pkcs1 := must(rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:]))
	for name, c := range map[string]struct {
		a   signer.Algorithm
		sig []byte
		ok  bool
	}{
		"pss salt 32":       {signer.RSAPSSSHA256, pss(32), true},
		"pss salt 0":        {signer.RSAPSSSHA256, pss(0), false},
		"pss salt 20":       {signer.RSAPSSSHA256, pss(20), false},
		"pss salt longest":  {signer.RSAPSSSHA256, pss(rsa.PSSSaltLengthAuto), false},
		"pss by pkcs1":      {signer.RSAPSSSHA256, pkcs1, false},
		"pkcs1":             {signer.RSAPKCS1SHA256, pkcs1, true},
		"pkcs1 by pss":      {signer.RSAPKCS1SHA256, pss(32), false},
		"pkcs1 zero before": {signer.RSAPKCS1SHA256, append([]byte{0}, pkcs1...), false},
		"pkcs1 short":       {signer.RSAPKCS1SHA256, pkcs1[1:], false},
	} {
		wantVerify(t, name, signer.Verify(c.a, key, message, c.sig), c.ok)
	}
}

func TestVerifyEd25519(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := must(signer.NewPublicKey(public))
	sig := ed25519.Sign(private, message)
	// S + L: the same scalar, another signature.
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := bytes.Clone(sig[32:])
	reverse(s)
	s = new(big.Int).Add(new(big.Int).SetBytes(s), l).FillBytes(make([]byte, 32))
	reverse(s)
	digest := sha256.Sum256(message)
	wantVerify(t, "as signed", signer.Verify(signer.Ed25519, key, message, sig), true)
	wantVerify(t, "S + L", signer.Verify(signer.Ed25519, key, message, append(bytes.Clone(sig[:32]), s...)), false)
	wantVerify(t, "65 bytes", signer.Verify(signer.Ed25519, key, message, append(bytes.Clone(sig), 0)), false)
	wantVerify(t, "63 bytes", signer.Verify(signer.Ed25519, key, message, sig[:63]), false)
	wantVerify(t, "over the hash", signer.Verify(signer.Ed25519, key, message, ed25519.Sign(private, digest[:])), false)
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

func TestHardwareMessage(t *testing.T) {
	long := make([]byte, signer.MaxHardwareEd25519+1)
	if err := signer.CheckHardwareMessage(signer.Ed25519, long); err == nil {
		t.Error("1,901 bytes are taken")
	}
	if err := signer.CheckHardwareMessage(signer.Ed25519, long[1:]); err != nil {
		t.Error(err)
	}
	if err := signer.CheckHardwareMessage(signer.ECDSAP256SHA256, long); err != nil {
		t.Error(err)
	}
}

// FuzzParsePublicKey: what parses is the one encoding of its key.
func FuzzParsePublicKey(f *testing.F) {
	f.Add(der(oidEd, noParameters, edwards25519.NewGeneratorPoint().Bytes()))
	f.Add(rsaDER(null, modulus(2048), 65537))
	f.Add(der(oidEd, noParameters, mixedOrder()))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := signer.ParsePublicKey(data)
		if err != nil {
			return
		}
		if again, err := signer.NewPublicKey(key.Key()); err != nil || !bytes.Equal(again.DER(), data) {
			t.Fatalf("parsed, but writes as %x, %v", again.DER(), err)
		}
	})
}
