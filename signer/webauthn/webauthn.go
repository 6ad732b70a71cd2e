// Package webauthn verifies that a browser-held key signed a message, by
// PROTOCOL section 3. It is not a login: enrolment and sign-in are another
// library's work, with another credential.
package webauthn

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Credential is what the registry fixes for a key that signs in a browser.
type Credential struct {
	CredentialID string   `json:"credentialId"` // unpadded base64url
	Origins      []string `json:"origins"`      // 1 to 8, compared as text
	RPID         string   `json:"rpId"`
}

// The bits of authenticatorData's flags byte (WebAuthn section 6.1).
const (
	flagUserPresent    = 0x01
	flagUserVerified   = 0x04
	flagBackupEligible = 0x08
	flagBackupState    = 0x10
)

// authenticatorData begins with the rpId's hash, a byte of flags and a counter.
const (
	rpIDHashSize      = sha256.Size
	minAuthenticator  = rpIDHashSize + 1 + 4
	maxAuthenticator  = envelope.MaxPayload
	clientDataTypeGet = "webauthn.get"
)

// Challenge is the challenge that the browser is given for a message: the
// unpadded base64url of its SHA-256.
func Challenge(message []byte) string {
	sum := sha256.Sum256(message)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Verify checks that assertion is the credential's over message. Classes:
// webauthn_invalid for what the authenticator or browser said, signature_invalid.
func (c Credential) Verify(algorithm signer.Algorithm, key signer.PublicKey, message []byte, assertion envelope.WebAuthn, sig []byte) error {
	if err := c.checkClientData(message, assertion.ClientDataJSON); err != nil {
		return err
	}
	if err := c.checkAuthenticatorData(assertion.AuthenticatorData); err != nil {
		return err
	}
	sum := sha256.Sum256(assertion.ClientDataJSON)
	signed := slices.Concat(assertion.AuthenticatorData, sum[:])
	return signer.Verify(algorithm, key, signed, sig)
}

func (c Credential) checkClientData(message, data []byte) error {
	// Raw values, so that null is told from absent.
	var client struct {
		Type        jsontext.Value `json:"type"`
		Challenge   jsontext.Value `json:"challenge"`
		Origin      jsontext.Value `json:"origin"`
		CrossOrigin jsontext.Value `json:"crossOrigin"`
		TopOrigin   jsontext.Value `json:"topOrigin"`
	}
	if err := envelope.DecodeForeign(data, &client); err != nil {
		return failure.New(failure.WebAuthnInvalid, "clientDataJSON: %w", err)
	}
	if text(client.Type) != clientDataTypeGet {
		return failure.New(failure.WebAuthnInvalid, "clientDataJSON's type is not %s", clientDataTypeGet)
	}
	if text(client.Challenge) != Challenge(message) {
		return failure.New(failure.WebAuthnInvalid, "the challenge is not this record's")
	}
	origin := text(client.Origin)
	if origin == "" || !slices.Contains(c.Origins, origin) {
		return failure.New(failure.WebAuthnInvalid, "origin %.200q is not registered for this key", origin)
	}
	if v := client.CrossOrigin; v != nil && v.Kind() != 'f' {
		return failure.New(failure.WebAuthnInvalid, "signed in a cross-origin frame")
	}
	if client.TopOrigin != nil {
		return failure.New(failure.WebAuthnInvalid, "signed inside another site's page")
	}
	return nil
}

// text is the string that a JSON value is, "" for every other value.
func text(v jsontext.Value) string {
	if v.Kind() != '"' {
		return ""
	}
	s, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return ""
	}
	return string(s)
}

func (c Credential) checkAuthenticatorData(data []byte) error {
	if len(data) < minAuthenticator || len(data) > maxAuthenticator {
		return failure.New(failure.WebAuthnInvalid, "authenticatorData has %d bytes, where at least %d are expected", len(data), minAuthenticator)
	}
	if want := sha256.Sum256([]byte(c.RPID)); [rpIDHashSize]byte(data[:rpIDHashSize]) != want {
		return failure.New(failure.WebAuthnInvalid, "signed for another relying party than %q", c.RPID)
	}
	flags := data[rpIDHashSize]
	if flags&flagUserPresent == 0 || flags&flagUserVerified == 0 {
		return failure.New(failure.WebAuthnInvalid, "the user was not present and verified")
	}
	if flags&(flagBackupEligible|flagBackupState) != 0 {
		return failure.New(failure.WebAuthnInvalid, "the credential is synced or may be: it does not stay in one device")
	}
	return nil
}
