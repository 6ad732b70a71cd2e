package gcpkmstest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"hash/crc32"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
)

type key struct {
	version        *kmspb.CryptoKeyVersion
	hash           crypto.Hash
	options        crypto.SignerOpts
	private, other crypto.Signer
}

// CreateKey makes an enabled HSM key version that signs by the algorithm (RSA:
// 2048 bits), and the URI that opens it.
func (s *Server) CreateKey(algorithm signer.Algorithm) (gcpkms.URI, error) {
	k := &key{hash: algorithm.Hash()}
	k.options = k.hash
	kind := kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256
	generate := func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
	newRSA := func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }
	switch algorithm {
	case signer.ECDSAP256SHA256:
	case signer.ECDSAP384SHA384:
		kind = kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384
		generate = func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }
	case signer.Ed25519:
		kind = kmspb.CryptoKeyVersion_EC_SIGN_ED25519
		generate = func() (crypto.Signer, error) {
			_, private, err := ed25519.GenerateKey(rand.Reader)
			return private, err
		}
	case signer.RSAPSSSHA256:
		kind, generate = kmspb.CryptoKeyVersion_RSA_SIGN_PSS_2048_SHA256, newRSA
		k.options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}
	case signer.RSAPKCS1SHA256:
		kind, generate = kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256, newRSA
	default:
		return gcpkms.URI{}, fmt.Errorf("no key for algorithm %q", algorithm)
	}
	var err error
	for _, private := range []*crypto.Signer{&k.private, &k.other} {
		if *private, err = generate(); err != nil {
			return gcpkms.URI{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fmt.Sprintf("projects/test/locations/europe-west3/keyRings/ring/cryptoKeys/key-%d/cryptoKeyVersions/1", len(s.keys)+1)
	k.version = &kmspb.CryptoKeyVersion{Name: name, Algorithm: kind, State: kmspb.CryptoKeyVersion_ENABLED, ProtectionLevel: kmspb.ProtectionLevel_HSM}
	s.keys[name] = k
	return gcpkms.URI{Name: name, Endpoint: s.endpoint, Insecure: true}, nil
}

// SetState puts the key version of u into a state.
func (s *Server) SetState(u gcpkms.URI, state kmspb.CryptoKeyVersion_CryptoKeyVersionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[u.Name].version.State = state
}

// SetProtection changes where the key version of u is said to lie.
func (s *Server) SetProtection(u gcpkms.URI, level kmspb.ProtectionLevel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[u.Name].version.ProtectionLevel = level
}

func (s *Server) find(name string) (*key, error) {
	if k := s.keys[name]; k != nil {
		return k, nil
	}
	return nil, status.Error(codes.NotFound, name+" not found")
}

func (k *key) enabled() error {
	if k.version.State != kmspb.CryptoKeyVersion_ENABLED {
		return status.Errorf(codes.FailedPrecondition, "%s is not enabled, current state is: %s", k.version.Name, k.version.State)
	}
	return nil
}

func (k *key) choose(f Fault) (crypto.Signer, string) {
	private, name := k.private, k.version.Name
	if f.OtherKey {
		private = k.other
	}
	if f.OtherName {
		name += "9"
	}
	return private, name
}

func checksum(data []byte, f Fault) *wrapperspb.Int64Value {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	if f.BadCRC {
		sum++
	}
	return wrapperspb.Int64(int64(sum))
}

// GetCryptoKeyVersion tells a version's state.
func (s *Server) GetCryptoKeyVersion(ctx context.Context, in *kmspb.GetCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	if _, err := s.begin(ctx, "GetCryptoKeyVersion"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(in.Name)
	if err != nil {
		return nil, err
	}
	v := k.version
	return &kmspb.CryptoKeyVersion{Name: v.Name, State: v.State, Algorithm: v.Algorithm, ProtectionLevel: v.ProtectionLevel}, nil
}

// GetPublicKey returns an enabled version's public key in PEM.
func (s *Server) GetPublicKey(ctx context.Context, in *kmspb.GetPublicKeyRequest) (*kmspb.PublicKey, error) {
	f, err := s.begin(ctx, "GetPublicKey")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(in.Name)
	if err != nil {
		return nil, err
	}
	if err := k.enabled(); err != nil {
		return nil, err
	}
	private, name := k.choose(f)
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &kmspb.PublicKey{Name: name, Pem: string(text), PemCrc32C: checksum(text, f), Algorithm: k.version.Algorithm, ProtectionLevel: k.version.ProtectionLevel}, nil
}
