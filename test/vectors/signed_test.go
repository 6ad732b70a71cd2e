package vectors_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/webauthn"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// signed is one vector whose keys are random: made anew by -update only, and
// then kept. All bytes are hex.
type signed struct {
	Name      string               `json:"name"`
	Algorithm signer.Algorithm     `json:"algorithm,omitzero"`
	Key       string               `json:"key,omitzero"` // DER SubjectPublicKeyInfo
	Message   string               `json:"message,omitzero"`
	WebAuthn  *webauthn.Credential `json:"webauthn,omitzero"`
	AuthData  string               `json:"authenticatorData,omitzero"`
	Client    string               `json:"clientDataJSON,omitzero"`
	Root      string               `json:"root,omitzero"` // pinned digest
	Input     string               `json:"input"`
	Expect    string               `json:"expect"`
}

// TestSignedVectors replays the stored vectors and a fresh set, which must have
// the same names and answers: a stored file can go stale, but not unnoticed.
func TestSignedVectors(t *testing.T) {
	for name, set := range map[string]struct {
		make  func() []signed
		judge func(signed) error
	}{
		"signature.json": {signatures, judgeSignature},
		"webauthn.json":  {assertions, judgeAssertion},
		"registry.json":  {chains, judgeChain},
		"manifest.json":  {manifests, judgeManifest},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := set.make()
			if *update {
				data, err := json.Marshal(fresh, jsontext.WithIndent("  "))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, append(data, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var stored []signed
			if err := json.Unmarshal(data, &stored, json.RejectUnknownMembers(true)); err != nil {
				t.Fatal(err)
			}
			if len(stored) != len(fresh) {
				t.Fatalf("%d stored vectors, %d made (go test -update)", len(stored), len(fresh))
			}
			for i, s := range stored {
				if s.Name != fresh[i].Name || s.Expect != fresh[i].Expect {
					t.Errorf("stored %s (%s), made %s (%s): go test -update", s.Name, s.Expect, fresh[i].Name, fresh[i].Expect)
				}
				for _, v := range []signed{s, fresh[i]} {
					got := "ok"
					if err := set.judge(v); err != nil {
						got = string(failure.ClassOf(err))
					}
					if got != v.Expect {
						t.Errorf("%s: got %s, want %s", v.Name, got, v.Expect)
					}
				}
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

func judgeSignature(s signed) error {
	key, err := signer.ParsePublicKey(unhex(s.Key))
	if err != nil {
		return err
	}
	return signer.Verify(s.Algorithm, key, unhex(s.Message), unhex(s.Input))
}

var message = []byte("DSSEv1 1 t 2 {}")

const badSignature = string(failure.SignatureInvalid)

func signatures() []signed {
	return slices.Concat(ecdsaSignatures(signer.ECDSAP256SHA256, elliptic.P256()), ecdsaSignatures(signer.ECDSAP384SHA384, elliptic.P384()), edSignatures(), rsaSignatures())
}

func signature(a signer.Algorithm, key signer.PublicKey, name string, sig []byte, expect string) signed {
	return signed{Name: string(a) + ": " + name, Algorithm: a, Key: hex.EncodeToString(key.DER()), Message: hex.EncodeToString(message), Input: hex.EncodeToString(sig), Expect: expect}
}

func ecdsaSignatures(a signer.Algorithm, curve elliptic.Curve) []signed {
	private := must(ecdsa.GenerateKey(curve, rand.Reader))
	key := must(signer.NewPublicKey(&private.PublicKey))
	type pair struct{ R, S *big.Int }
	var p pair
	n := curve.Params().N
	half := new(big.Int).Rsh(n, 1)
	// R and S with a clear top bit are encoded without a leading zero, so that
	// one more is an error, and R + n still fits the length.
	for p.R == nil || p.R.Bit(curve.Params().BitSize-1) == 1 {
		must(asn1.Unmarshal(must(private.Sign(rand.Reader, signer.Digest(a, message), a.Hash())), &p))
	}
	if p.S.Cmp(half) > 0 {
		p.S.Sub(n, p.S)
	}
	low, high := must(asn1.Marshal(p)), must(asn1.Marshal(pair{p.R, new(big.Int).Sub(n, p.S)}))
	body := low[2:]
	padded := append([]byte{2, low[3] + 1, 0}, low[4:]...)
	size := curve.Params().BitSize / 8
	raw := append(p.R.FillBytes(make([]byte, size)), p.S.FillBytes(make([]byte, size))...)
	v := func(name string, sig []byte, expect string) signed { return signature(a, key, name, sig, expect) }
	return []signed{
		v("low S", low, "ok"), v("high S", high, "ok"), v("S is 0", must(asn1.Marshal(pair{p.R, new(big.Int)})), badSignature),
		v("R is 0", must(asn1.Marshal(pair{new(big.Int), p.S})), badSignature),
		v("S + n", must(asn1.Marshal(pair{p.R, new(big.Int).Add(p.S, n)})), badSignature),
		v("R + n", must(asn1.Marshal(pair{new(big.Int).Add(p.R, n), p.S})), badSignature),
		v("negative S", must(asn1.Marshal(pair{p.R, new(big.Int).Neg(p.S)})), badSignature),
		v("length not minimal", append([]byte{0x30, 0x81, byte(len(body))}, body...), badSignature),
		v("R with a zero byte before", append([]byte{0x30, byte(len(padded))}, padded...), badSignature),
		v("trailing byte", append(bytes.Clone(low), 0), badSignature), v("raw R and S", raw, badSignature), v("empty", nil, badSignature),
		v("over another message", must(private.Sign(rand.Reader, signer.Digest(a, []byte("x")), a.Hash())), badSignature),
	}
}

func edSignatures() []signed {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	key := must(signer.NewPublicKey(must(public, err)))
	sig := ed25519.Sign(private, message)
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := bytes.Clone(sig[32:])
	slices.Reverse(s)
	s = new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(s)
	digest := sha256.Sum256(message)
	v := func(name string, sig []byte, expect string) signed {
		return signature(signer.Ed25519, key, name, sig, expect)
	}
	identity := append([]byte{1}, make([]byte, 63)...) // R is the identity, S is 0
	weak := v("low-order key, all-zero S", identity, string(failure.FieldInvalid))
	weak.Key = "302a300506032b6570032100" + "01" + strings.Repeat("00", 31)
	mixed := v("key that is not canonical", sig, string(failure.FieldInvalid))
	mixed.Key = "302a300506032b6570032100" + "ee" + strings.Repeat("ff", 30) + "7f"
	return []signed{
		v("as signed", sig, "ok"), v("S + L", append(bytes.Clone(sig[:32]), s...), badSignature), v("65 bytes", append(bytes.Clone(sig), 0), badSignature),
		v("63 bytes", sig[:63], badSignature), v("over the hash", ed25519.Sign(private, digest[:]), badSignature),
		v("Ed25519ph", must(private.Sign(nil, sha512Sum(message), &ed25519.Options{Hash: crypto.SHA512})), badSignature),
		v("R is the identity", identity, badSignature), weak, mixed,
	}
}

func sha512Sum(m []byte) []byte {
	h := crypto.SHA512.New()
	h.Write(m)
	return h.Sum(nil)
}

func rsaSignatures() []signed {
	private := must(rsa.GenerateKey(rand.Reader, 2048))
	key := must(signer.NewPublicKey(&private.PublicKey))
	digest := sha256.Sum256(message)
	pss := func(salt int, h crypto.Hash, d []byte) []byte {
		return must(rsa.SignPSS(rand.Reader, private, h, d, &rsa.PSSOptions{SaltLength: salt}))
	}
	digest512 := sha512Sum(message)
	pkcs1 := must(rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:]))
	v := func(a signer.Algorithm, name string, sig []byte, expect string) signed {
		return signature(a, key, name, sig, expect)
	}
	const p, k = signer.RSAPSSSHA256, signer.RSAPKCS1SHA256
	return []signed{
		v(p, "salt 32", pss(32, crypto.SHA256, digest[:]), "ok"), v(p, "salt 0", pss(0, crypto.SHA256, digest[:]), badSignature),
		v(p, "salt 31", pss(31, crypto.SHA256, digest[:]), badSignature), v(p, "salt 33", pss(33, crypto.SHA256, digest[:]), badSignature),
		v(p, "SHA-512", pss(32, crypto.SHA512, digest512), badSignature), v(p, "by PKCS#1", pkcs1, badSignature),
		v(k, "as signed", pkcs1, "ok"), v(k, "by PSS", pss(32, crypto.SHA256, digest[:]), badSignature),
		v(k, "SHA-512", must(rsa.SignPKCS1v15(nil, private, crypto.SHA512, digest512)), badSignature),
		v(k, "a byte short", pkcs1[1:], badSignature), v(k, "a zero byte before", append([]byte{0}, pkcs1...), badSignature),
		v("ed25519", "algorithm of another key", pkcs1, badSignature),
	}
}

func judgeAssertion(s signed) error {
	key, err := signer.ParsePublicKey(unhex(s.Key))
	if err != nil {
		return err
	}
	assertion := envelope.WebAuthn{AuthenticatorData: unhex(s.AuthData), ClientDataJSON: unhex(s.Client)}
	return s.WebAuthn.Verify(s.Algorithm, key, unhex(s.Message), assertion, unhex(s.Input))
}

func assertions() []signed {
	p256 := newKey(signer.ECDSAP256SHA256)
	ed := newKey(signer.Ed25519)
	credential := webauthn.Credential{CredentialID: "AQID", RPID: "gate.example", Origins: []string{"https://gate.example", "https://b.gate.example:8443"}}
	good := `{"type":"webauthn.get","challenge":"` + webauthn.Challenge(message) + `","origin":"https://gate.example","crossOrigin":false}`
	v := func(key signer.Signer, name, rpID string, flags byte, more, client, expect string) signed {
		sum := sha256.Sum256([]byte(rpID))
		auth := slices.Concat(sum[:], []byte{flags, 0, 0, 0, 1}, []byte(more))
		clientSum := sha256.Sum256([]byte(client))
		return signed{
			Name: name, Algorithm: key.Algorithm(), Key: hex.EncodeToString(key.Public().DER()), Message: hex.EncodeToString(message), WebAuthn: &credential,
			AuthData: hex.EncodeToString(auth), Client: hex.EncodeToString([]byte(client)), Expect: expect,
			Input: hex.EncodeToString(must(key.Sign(context.Background(), slices.Concat(auth, clientSum[:])))),
		}
	}
	const bad = string(failure.WebAuthnInvalid)
	edit := func(name, old, new, expect string) signed {
		if !strings.Contains(good, old) {
			panic(old)
		}
		return v(p256, name, "gate.example", 0x05, "", strings.Replace(good, old, new, 1), expect)
	}
	flags := func(name string, f byte, more, expect string) signed {
		return v(p256, name, "gate.example", f, more, good, expect)
	}
	short := flags("36 bytes", 0x05, "", bad)
	short.AuthData = short.AuthData[:72]
	changed := flags("counter changed after signing", 0x05, "", badSignature)
	changed.AuthData = changed.AuthData[:72] + "02"
	return []signed{
		flags("P-256", 0x05, "", "ok"), v(ed, "Ed25519", "gate.example", 0x05, "", good, "ok"), flags("extension data", 0x85, "\xa0", "ok"),
		flags("not present", 0x04, "", bad), flags("not verified", 0x01, "", bad), flags("backup eligible", 0x0d, "", bad), flags("backup state", 0x15, "", bad), short, changed,
		v(p256, "another rpId", "example", 0x05, "", good, bad),
		edit("another registered origin", "https://gate.example", "https://b.gate.example:8443", "ok"), edit("origin with a slash", `example",`, `example/",`, bad),
		edit("origin with its default port", `example",`, `example:443",`, bad), edit("origin in capitals", "https://gate", "https://GATE", bad),
		edit("http", "https:", "http:", bad), edit("type create", "webauthn.get", "webauthn.create", bad), edit("type escaped", "webauthn.get", `\u0077ebauthn.get`, "ok"),
		edit("Type beside type", `{`, `{"Type":"webauthn.create",`, "ok"), edit("type twice", `{`, `{"type":"webauthn.get",`, bad),
		edit("challenge padded", `","origin"`, `=","origin"`, bad), edit("crossOrigin true", "false", "true", bad), edit("crossOrigin null", "false", "null", bad),
		edit("no crossOrigin", `,"crossOrigin":false`, "", "ok"), edit("topOrigin", `}`, `,"topOrigin":"https://gate.example"}`, bad),
		edit("unknown members", `}`, `,"x":[null,-1.5e3]}`, "ok"), edit("BOM", "{", "\ufeff{", bad), edit("two values", "}", "}{}", bad),
	}
}

func judgeManifest(s signed) error {
	env, err := envelope.Parse(unhex(s.Input))
	if err != nil {
		return err
	}
	_, err = upgrade.OpenManifest(env)
	return err
}

func judgeChain(s signed) error {
	var entries []keyregistry.SignedDocument
	if err := envelope.DecodeCanonical(unhex(s.Input), upgrade.MaxBundle, &entries); err != nil {
		return err
	}
	_, err := keyregistry.AcceptChain(must(envelope.ParseDigest(s.Root)), entries)
	return err
}
