package awskmstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
)

// State is a key's, as KMS names it.
type State string

// The states that a test can put a key in.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
)

type key struct {
	id             string
	spec           string
	algorithms     []string
	private, other crypto.Signer
	state          State
	usage          string
}

func (k *key) arn() string { return "arn:aws:kms:" + Region + ":" + account + ":key/" + k.id }

// CreateKey makes a key that signs by the algorithm (RSA: 2048 bits), and the
// URI that opens it.
func (s *Server) CreateKey(algorithm signer.Algorithm) (awskms.URI, error) {
	k := &key{id: uuid.NewString(), state: Enabled, usage: "SIGN_VERIFY"}
	var err error
	for _, private := range []*crypto.Signer{&k.private, &k.other} {
		if *private, err = k.generate(algorithm); err != nil {
			return awskms.URI{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.id] = k
	return awskms.URI{Key: k.id, Region: Region, Endpoint: s.endpoint, Algorithm: algorithm}, nil
}

func (k *key) generate(algorithm signer.Algorithm) (private crypto.Signer, err error) {
	switch algorithm {
	case signer.ECDSAP256SHA256:
		k.spec, k.algorithms = "ECC_NIST_P256", []string{"ECDSA_SHA_256"}
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case signer.ECDSAP384SHA384:
		k.spec, k.algorithms = "ECC_NIST_P384", []string{"ECDSA_SHA_384"}
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case signer.Ed25519:
		k.spec, k.algorithms = "ECC_NIST_EDWARDS25519", []string{"ED25519_PH_SHA_512", "ED25519_SHA_512"}
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		k.spec = "RSA_2048"
		k.algorithms = []string{"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"}
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("no key for algorithm %q", algorithm)
}

// Alias lets alias/name stand for the key of u, or moves it there.
func (s *Server) Alias(name string, u awskms.URI) awskms.URI {
	s.change(u, func(k *key) { s.keys["alias/"+name] = k })
	u.Key = "alias/" + name
	return u
}

// SetState puts the key of u into a state.
func (s *Server) SetState(u awskms.URI, state State) { s.change(u, func(k *key) { k.state = state }) }

// SetUsage changes what the key of u is for, such as ENCRYPT_DECRYPT.
func (s *Server) SetUsage(u awskms.URI, usage string) { s.change(u, func(k *key) { k.usage = usage }) }

// change panics where there is no such key: that is a mistake in the test.
func (s *Server) change(u awskms.URI, f func(*key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.keys[u.Key])
}

type request struct {
	KeyID            string `json:"KeyId"`
	Message          []byte
	MessageType      string
	SigningAlgorithm string
	DryRun           bool
}

func (s *Server) do(operation string, body []byte, f Fault) (any, error) {
	var in request
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return nil, fail("SerializationException", err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := in.KeyID
	if rest, ok := strings.CutPrefix(name, "arn:aws:kms:"+Region+":"+account+":"); ok {
		name = strings.TrimPrefix(rest, "key/")
	}
	k := s.keys[name]
	if k == nil {
		return nil, fail("NotFoundException", "no key "+in.KeyID)
	}
	if k.state == PendingDeletion {
		return nil, fail("KMSInvalidStateException", k.arn()+" is pending deletion.")
	}
	private := k.private
	if f.OtherKey {
		private = k.other
	}
	if operation == "GetPublicKey" {
		return k.publicKey(private, f.Terse)
	}
	if k.state == Disabled {
		return nil, fail("DisabledException", k.arn()+" is disabled.")
	}
	if in.DryRun && f.NoDryRun {
		return nil, fail("ValidationException", "unknown member DryRun")
	}
	return k.sign(private, in, f)
}

func (k *key) publicKey(private crypto.Signer, terse bool) (any, error) {
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	if terse {
		return map[string]any{"KeyId": k.arn(), "PublicKey": der}, nil
	}
	return map[string]any{"KeyId": k.arn(), "PublicKey": der, "KeySpec": k.spec, "CustomerMasterKeySpec": k.spec,
		"KeyUsage": k.usage, "SigningAlgorithms": k.algorithms}, nil
}
