package main

import (
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// typeEnrolment is the payload type of an enrolment file. It is no record of
// the protocol: no Kernel and no verifier ever accepts it.
const typeEnrolment = "application/vnd.kernelgate.enrolment.v1+json"

// enrolment is what the holder of a key asks the registry to say of it. The
// file is an envelope around it, signed by that key: proof of possession.
type enrolment struct {
	// Attestation is the device maker's word for the key: DER certificates,
	// recorded as they were given. The registry does not hold it.
	Attestation [][]byte `json:"attestation,omitzero"`

	ID   envelope.ID      `json:"id"`
	Key  keyregistry.Key  `json:"key"`
	Kind keyregistry.Kind `json:"kind"`
	Name string           `json:"name,omitzero"` // not for the Kernel's keys
	Role keyregistry.Role `json:"role,omitzero"` // approvers only
}

// readEnrolment refuses a file whose key did not sign it.
func readEnrolment(path string) (*enrolment, error) {
	data, err := readFile(path, envelope.MaxWire)
	if err != nil {
		return nil, err
	}
	e, err := parseEnrolment(data)
	if err != nil {
		return nil, fmt.Errorf("enrolment %s: %w", path, err)
	}
	return e, nil
}

func parseEnrolment(data []byte) (*enrolment, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := env.Expect(typeEnrolment); err != nil {
		return nil, err
	}
	sig, err := env.Single()
	if err != nil {
		return nil, err
	}
	e := new(enrolment)
	if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, e); err != nil {
		return nil, err
	}
	public, err := signer.ParsePublicKey(e.Key.PublicKey)
	if err != nil {
		return nil, err
	}
	if string(e.Key.KeyID) != public.KeyID() || sig.KeyID != e.Key.KeyID {
		return nil, failure.New(failure.BindingMismatch, "the entry, its public key and its signature name different keys")
	}
	if !e.Key.Algorithm.Fits(public.Key()) {
		return nil, failure.New(failure.FieldInvalid, "algorithm %.40q does not fit the key", e.Key.Algorithm)
	}
	if e.Attestation != nil {
		if err := checkAttestation(e.Attestation, public, e.Key.Origin); err != nil {
			return nil, failure.New(failure.FieldInvalid, "attestation: %w", err)
		}
	}
	credential := e.Key.WebAuthn // of a browser's key; CommandPad writes its file
	e.Key = keyregistry.NewKey(public, e.Key.Algorithm, e.Key.Origin, e.Key.NotBefore, e.Key.NotAfter)
	e.Key.WebAuthn = credential
	return e, e.Key.Verify(env, sig)
}
