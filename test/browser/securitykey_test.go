package browser_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/webauthn"
)

// rpID is the relying party of a gateway on http://localhost.
const rpID = "localhost"

// securityKey is the key of an approver that signs in a browser. It is made
// here, so that it can sign the registry's first version before there is a
// gateway; the browser's virtual authenticator is then given the same key.
type securityKey struct {
	private    *ecdsa.PrivateKey
	public     signer.PublicKey
	credential []byte
	origin     string
}

func newSecurityKey(t *testing.T, origin string) *securityKey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	check(t, err)
	public, err := signer.ParsePublicKey(der)
	check(t, err)
	k := &securityKey{private: private, public: public, credential: make([]byte, 16), origin: origin}
	_, _ = rand.Read(k.credential)
	return k
}

func (k *securityKey) entry(at envelope.Time) keyregistry.Key {
	key := keyregistry.NewKey(k.public, signer.ECDSAP256SHA256, keyregistry.OriginWebAuthn, at.Add(-3600), at.Add(365*86400))
	key.WebAuthn = &webauthn.Credential{CredentialID: base64.RawURLEncoding.EncodeToString(k.credential), RPID: rpID, Origins: []string{k.origin}}
	return key
}

// sign makes an assertion as an authenticator with user verification does.
func (k *securityKey) sign(t *testing.T, env envelope.Envelope) envelope.Signature {
	clientData := []byte(`{"type":"webauthn.get","challenge":"` + webauthn.Challenge(env.PAE()) + `","origin":"` + k.origin + `","crossOrigin":false}`)
	party := sha256.Sum256([]byte(rpID))
	authenticator := append(party[:], 0x05, 0, 0, 0, 1)
	client := sha256.Sum256(clientData)
	sum := sha256.Sum256(append(append([]byte{}, authenticator...), client[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	check(t, err)
	return envelope.Signature{KeyID: envelope.KeyID(k.public.KeyID()), Sig: sig, WebAuthn: &envelope.WebAuthn{AuthenticatorData: authenticator, ClientDataJSON: clientData}}
}

// pkcs8 is the private key as the virtual authenticator takes it.
func (k *securityKey) pkcs8(t *testing.T) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	check(t, err)
	return der
}
