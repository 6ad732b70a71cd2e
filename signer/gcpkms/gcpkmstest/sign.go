package gcpkmstest

import (
	"context"
	"crypto"
	"crypto/rand"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// AsymmetricSign signs a digest or, for Ed25519, data.
func (s *Server) AsymmetricSign(ctx context.Context, in *kmspb.AsymmetricSignRequest) (*kmspb.AsymmetricSignResponse, error) {
	f, err := s.begin(ctx, "AsymmetricSign")
	if err != nil {
		return nil, err
	}
	out, err := s.sign(in, f)
	if f.Drop {
		s.listener.drop()
	}
	return out, err
}

func (s *Server) sign(in *kmspb.AsymmetricSignRequest, f Fault) (*kmspb.AsymmetricSignResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(in.Name)
	if err != nil {
		return nil, err
	}
	if err := k.enabled(); err != nil {
		return nil, err
	}
	input, sum := in.Data, in.DataCrc32C
	if k.hash != 0 {
		input, sum = in.Digest.GetSha256(), in.DigestCrc32C
		if k.hash == crypto.SHA384 {
			input = in.Digest.GetSha384()
		}
		if len(input) != k.hash.Size() || in.Data != nil {
			return nil, status.Error(codes.InvalidArgument, "the digest does not fit the key's algorithm")
		}
	}
	if !right(input, sum) {
		return nil, status.Error(codes.InvalidArgument, "the checksum is not the data's")
	}
	private, name := k.choose(f)
	sig, err := private.Sign(rand.Reader, input, k.options)
	if err != nil {
		return nil, err
	}
	if f.Corrupt {
		sig[len(sig)-1] ^= 1
	}
	return &kmspb.AsymmetricSignResponse{
		Name: name, Signature: sig, SignatureCrc32C: checksum(sig, f), ProtectionLevel: k.version.ProtectionLevel,
		VerifiedDataCrc32C:   in.DataCrc32C != nil && !f.Unverified,
		VerifiedDigestCrc32C: in.DigestCrc32C != nil && !f.Unverified,
	}, nil
}

// right: a checksum that is absent is not checked, as in the service.
func right(data []byte, sum *wrapperspb.Int64Value) bool {
	return sum == nil || sum.Value == checksum(data, Fault{}).Value
}
