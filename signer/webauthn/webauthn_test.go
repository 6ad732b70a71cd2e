package webauthn_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/webauthn"
)

var (
	credential = webauthn.Credential{CredentialID: "AQ", RPID: "gate.example", Origins: []string{"https://gate.example", "https://b.gate.example:8443"}}
	message    = []byte("the record")
)

func clientData(edit ...string) string {
	s := `{"type":"webauthn.get","challenge":"` + webauthn.Challenge(message) + `","origin":"https://gate.example","crossOrigin":false}`
	return strings.NewReplacer(edit...).Replace(s)
}

func authenticatorData(rpID string, flags byte, more ...byte) []byte {
	sum := sha256.Sum256([]byte(rpID))
	return slices.Concat(sum[:], []byte{flags, 0, 0, 0, 7}, more)
}

func TestVerify(t *testing.T) {
	good := authenticatorData("gate.example", 0x05)
	const cross = `"crossOrigin":false`
	for name, c := range map[string]struct {
		auth   []byte
		client string
		ok     bool
	}{
		"as a browser writes it":  {good, clientData(), true},
		"crossOrigin absent":      {good, clientData(","+cross, ""), true},
		"crossOrigin true":        {good, clientData("false", "true"), false},
		"crossOrigin null":        {good, clientData("false", "null"), false},
		"crossOrigin text":        {good, clientData("false", `"false"`), false},
		"topOrigin":               {good, clientData(cross, `"topOrigin":"https://gate.example"`), false},
		"topOrigin null":          {good, clientData(cross, `"topOrigin":null`), false},
		"unknown members":         {good, clientData(cross, `"other":[null,-1.5],"Type":"webauthn.create"`), true},
		"type create":             {good, clientData("webauthn.get", "webauthn.create"), false},
		"only Type":               {good, clientData(`"type"`, `"Type"`), false},
		"type twice":              {good, clientData(cross, `"type":"webauthn.get"`), false},
		"type null":               {good, clientData(`"webauthn.get"`, "null"), false},
		"other registered origin": {good, clientData("//gate.example", "//b.gate.example:8443"), true},
		"origin with slash":       {good, clientData("gate.example", "gate.example/"), false},
		"origin in capitals":      {good, clientData("gate.example", "GATE.example"), false},
		"origin with port":        {good, clientData("gate.example", "gate.example:443"), false},
		"origin begins alike":     {good, clientData("gate.example", "gate.example.evil"), false},
		"origin missing":          {good, clientData(`"origin"`, `"o"`), false},
		"challenge padded":        {good, clientData(`","origin`, `=","origin`), false},
		"challenge empty":         {good, clientData(webauthn.Challenge(message), ""), false},
		"challenge of another":    {good, clientData(webauthn.Challenge(message), webauthn.Challenge([]byte("x"))), false},
		"BOM":                     {good, "\ufeff" + clientData(), false},
		"trailing value":          {good, clientData() + "{}", false},
		"no JSON":                 {good, "x", false},
		"over 64 KiB":             {good, clientData() + strings.Repeat(" ", envelope.MaxPayload), false},
		"36 bytes":                {good[:36], clientData(), false},
		"empty authenticatorData": {nil, clientData(), false},
		"extension data":          {authenticatorData("gate.example", 0x85, 0xa0), clientData(), true},
		"rpId of another":         {authenticatorData("example", 0x05), clientData(), false},
		"not present":             {authenticatorData("gate.example", 0x04), clientData(), false},
		"not verified":            {authenticatorData("gate.example", 0x01), clientData(), false},
		"backup eligible":         {authenticatorData("gate.example", 0x0d), clientData(), false},
		"backup state":            {authenticatorData("gate.example", 0x15), clientData(), false},
		"eligible and backed up":  {authenticatorData("gate.example", 0x1d), clientData(), false},
	} {
		for _, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.Ed25519} {
			s := registrytest.Key(a)
			sum := sha256.Sum256([]byte(c.client))
			sig, err := s.Sign(context.Background(), slices.Concat(c.auth, sum[:]))
			if err != nil {
				t.Logf("%s: not signed: %v", name, err) // over what the key signs; the form is judged first
			}
			assertion := envelope.WebAuthn{AuthenticatorData: c.auth, ClientDataJSON: []byte(c.client)}
			err = credential.Verify(a, s.Public(), message, assertion, sig)
			if c.ok != (err == nil) || !c.ok && failure.ClassOf(err) != failure.WebAuthnInvalid {
				t.Errorf("%s, %s: got %v, want accepted %v", name, a, err, c.ok)
			}
		}
	}
}

func TestVerifyBindsEveryByte(t *testing.T) {
	s := registrytest.Key(signer.ECDSAP256SHA256)
	assertion := envelope.WebAuthn{AuthenticatorData: authenticatorData("gate.example", 0x05), ClientDataJSON: []byte(clientData())}
	sum := sha256.Sum256(assertion.ClientDataJSON)
	sig, err := s.Sign(context.Background(), slices.Concat(assertion.AuthenticatorData, sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	spaced, counted := assertion, assertion
	spaced.ClientDataJSON = append(bytes.Clone(assertion.ClientDataJSON), ' ')
	counted.AuthenticatorData = bytes.Clone(assertion.AuthenticatorData)
	counted.AuthenticatorData[36]++
	for name, a := range map[string]envelope.WebAuthn{"a space more": spaced, "another counter": counted} {
		if err := credential.Verify(s.Algorithm(), s.Public(), message, a, sig); failure.ClassOf(err) != failure.SignatureInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzClientData: only data that carries the challenge and a registered origin
// passes, whatever stands around it. The signature is empty, so what passes
// ends as signature_invalid.
func FuzzClientData(f *testing.F) {
	f.Add([]byte(clientData()))
	key := registrytest.Key(signer.ECDSAP256SHA256).Public()
	f.Fuzz(func(t *testing.T, data []byte) {
		assertion := envelope.WebAuthn{AuthenticatorData: authenticatorData("gate.example", 0x05), ClientDataJSON: data}
		err := credential.Verify(signer.ECDSAP256SHA256, key, message, assertion, nil)
		switch failure.ClassOf(err) {
		case failure.WebAuthnInvalid:
		case failure.SignatureInvalid:
			if envelope.CheckForeign(data) != nil {
				t.Fatalf("%q passed, yet it is not strict", data)
			}
		default:
			t.Fatalf("unexpected verdict %v", err)
		}
	})
}
