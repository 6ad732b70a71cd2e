package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
)

// Bounds of an attestation, so that an enrolment stays within an envelope.
const (
	maxAttestation  = 8
	maxAttestedFile = 40 << 10
)

// readAttestation reads the certificates of a PEM file: what a device's maker
// says of the key, as ykman, yubihsm-shell or a cloud hands it out. Whether the
// maker's root stands behind it is for who proposes the registry to check;
// here only that a token's attestation is of this very key.
func readAttestation(path string, key signer.PublicKey, origin keyregistry.Origin) ([][]byte, error) {
	data, err := readFile(path, maxAttestedFile)
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(list) == maxAttestation {
			return nil, fmt.Errorf("attestation %s: it holds 1 to %d certificates in PEM and nothing else", path, maxAttestation)
		}
		list = append(list, block.Bytes)
	}
	// A block that is cut or damaged is skipped by the decoder without a word.
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun != len(list) {
		return nil, fmt.Errorf("attestation %s: %d of its %d certificates are cut or damaged", path, begun-len(list), begun)
	}
	if err := checkAttestation(list, key, origin); err != nil {
		return nil, fmt.Errorf("attestation %s: %w", path, err)
	}
	return list, nil
}

func checkAttestation(list [][]byte, key signer.PublicKey, origin keyregistry.Origin) error {
	if len(list) == 0 || len(list) > maxAttestation {
		return fmt.Errorf("it holds 1 to %d certificates in PEM and nothing else", maxAttestation)
	}
	ofKey := false
	for _, der := range list {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		ofKey = ofKey || bytes.Equal(certificate.RawSubjectPublicKeyInfo, key.DER())
	}
	// Cloud KMS's chain certifies the HSM that attests, not the key.
	if !ofKey && origin != keyregistry.OriginGCPKMS {
		return fmt.Errorf("none of its certificates is of key %s: it attests another key", key.KeyID())
	}
	return nil
}
