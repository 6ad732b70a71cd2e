// Package envelope is the outer form of everything that is signed: strict
// canonical JSON payloads (PROTOCOL sections 1 and 2) inside DSSE v1 envelopes
// (section 3). It does no IO and knows no key; whose signature counts is
// keyregistry's to say.
//
// A value is parsed once, from the very bytes that are verified:
//
//	env, err := envelope.Parse(wire)
//	err = key.Verify(env, env.Signatures[0]) // keyregistry.Key
//	err = envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &record)
package envelope

import (
	"bytes"
	"context"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
)

const (
	// MaxWire is the size limit of one envelope on the wire, in bytes.
	MaxWire = 1 << 20
	// MaxSignatures is the most that a registry statement carries.
	MaxSignatures = 64
)

// Envelope is a DSSE v1 envelope. Its JSON form is PROTOCOL section 3's.
type Envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature object. KeyID only selects the key; WebAuthn is
// there exactly when the key signs in a browser.
type Signature struct {
	KeyID    KeyID     `json:"keyid"`
	Sig      []byte    `json:"sig"`
	WebAuthn *WebAuthn `json:"webauthn,omitzero"`
}

// WebAuthn is what an authenticator signed beside the challenge, as raw bytes.
type WebAuthn struct {
	AuthenticatorData []byte `json:"authenticatorData"`
	ClientDataJSON    []byte `json:"clientDataJSON"`
}

// Parse parses an envelope on the wire, in any JSON layout, and checks its
// form. It verifies no signature. The failure class is envelope_malformed.
func Parse(wire []byte) (Envelope, error) {
	var env Envelope
	if len(wire) > MaxWire {
		return env, failure.New(failure.EnvelopeMalformed, "%d bytes, where at most %d are allowed", len(wire), MaxWire)
	}
	if err := json.Unmarshal(wire, &env, json.RejectUnknownMembers(true)); err != nil {
		return env, failure.Reclass(failure.EnvelopeMalformed, misfit(err))
	}
	// The layout is free, the content is not: canonical base64, no null, no
	// missing member.
	canonical := jsontext.Value(bytes.Clone(wire))
	if err := canonical.Canonicalize(); err != nil {
		return env, failure.Reclass(failure.EnvelopeMalformed, err)
	}
	if err := checkRoundTrip(canonical, env); err != nil {
		return env, failure.Reclass(failure.EnvelopeMalformed, err)
	}
	return env, env.Check()
}

// Check refuses an envelope whose parts break PROTOCOL section 3: payload
// size, count of signatures, two signatures by one key. Envelopes inside a
// larger document are decoded with it and checked by this.
func (e Envelope) Check() error {
	if len(e.Payload) > MaxPayload {
		return failure.New(failure.EnvelopeMalformed, "payload of %d bytes, where at most %d are allowed", len(e.Payload), MaxPayload)
	}
	if n := len(e.Signatures); n < 1 || n > MaxSignatures {
		return failure.New(failure.EnvelopeMalformed, "%d signatures, where 1 to %d are allowed", n, MaxSignatures)
	}
	seen := make(map[KeyID]bool, len(e.Signatures))
	for _, s := range e.Signatures {
		if seen[s.KeyID] {
			return failure.New(failure.EnvelopeMalformed, "two signatures by key %s", s.KeyID)
		}
		seen[s.KeyID] = true
	}
	return nil
}

// Single is the one signature of an envelope that must have exactly one: all
// but registry statements.
func (e Envelope) Single() (Signature, error) {
	if err := e.Check(); err != nil {
		return Signature{}, err
	}
	if len(e.Signatures) != 1 {
		return Signature{}, failure.New(failure.EnvelopeMalformed, "%d signatures, where exactly one is allowed", len(e.Signatures))
	}
	return e.Signatures[0], nil
}

// Expect refuses an envelope of another payload type, before its payload is
// looked at. The failure class is wrong_payload_type.
func (e Envelope) Expect(payloadType string) error {
	if e.PayloadType != payloadType {
		return failure.New(failure.WrongPayloadType, "payload type is %.120q, not %q", e.PayloadType, payloadType)
	}
	return nil
}

// Bytes is the envelope in RFC 8785 form, as it stands in bundles and in the log.
func (e Envelope) Bytes() []byte {
	data, err := Canonical(e)
	if err != nil {
		// payloadType is the only free text, and it is valid UTF-8 once parsed.
		panic("envelope: " + err.Error())
	}
	return data
}

// PayloadDigest is the digest by which records are named.
func (e Envelope) PayloadDigest() Digest { return DigestOf(e.Payload) }

// PAE is the pre-authentication encoding of the envelope: the message that is signed.
func (e Envelope) PAE() []byte { return PAE(e.PayloadType, e.Payload) }

// PAE is DSSE v1's pre-authentication encoding of a type and a payload.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+32)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Seal puts record into an envelope of the given type and signs it with s.
// The record is written in canonical form.
func Seal(ctx context.Context, s signer.Signer, payloadType string, record any) (Envelope, error) {
	payload, err := Canonical(record)
	if err != nil {
		return Envelope{}, failure.As(failure.PayloadMalformed, err)
	}
	if len(payload) > MaxPayload {
		return Envelope{}, failure.New(failure.PayloadMalformed, "payload of %d bytes, where at most %d are allowed", len(payload), MaxPayload)
	}
	env := Envelope{Payload: payload, PayloadType: payloadType}
	sig, err := Sign(ctx, s, env)
	if err != nil {
		return Envelope{}, err
	}
	env.Signatures = []Signature{sig}
	return env, nil
}

// Sign is s's signature over env's payload and type, to be added to its Signatures.
func Sign(ctx context.Context, s signer.Signer, env Envelope) (Signature, error) {
	sig, err := s.Sign(ctx, env.PAE())
	if err != nil {
		return Signature{}, err
	}
	return Signature{KeyID: KeyID(s.Public().KeyID()), Sig: sig}, nil
}
