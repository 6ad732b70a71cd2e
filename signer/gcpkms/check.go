package gcpkms

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kernelgate/kernelgate/signer"
)

// ErrDamaged says that bytes changed on their way to Cloud KMS or back, by
// their CRC32C. Errors that wrap it wrap signer.ErrUnavailable too.
var ErrDamaged = errors.New("bytes changed on the way (CRC32C)")

func checksum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

// intact reports whether a checksum stands beside data and is data's.
func intact(data []byte, sum *wrapperspb.Int64Value) bool {
	return sum != nil && sum.Value == checksum(data).Value
}

func (k *key) checkReply(in *kmspb.AsymmetricSignRequest, out *kmspb.AsymmetricSignResponse) error {
	if out.Name != k.uri.Name {
		return fmt.Errorf("%w: Cloud KMS answered for %q, not %s", signer.ErrKey, out.Name, k.uri.Name)
	}
	verified := in.DataCrc32C != nil && out.VerifiedDataCrc32C || in.DigestCrc32C != nil && out.VerifiedDigestCrc32C
	if !verified || !intact(out.Signature, out.SignatureCrc32C) {
		return fmt.Errorf("%w: Cloud KMS: %w; try again", signer.ErrUnavailable, ErrDamaged)
	}
	return k.checkProtection(out.ProtectionLevel)
}

// load fetches the public key and checks that it is the one wanted.
func (k *key) load(ctx context.Context, wanted string) error {
	if err := k.checkState(ctx); err != nil {
		return err
	}
	out, err := k.client.GetPublicKey(ctx, &kmspb.GetPublicKeyRequest{Name: k.uri.Name}, onQuotaOnly())
	if err != nil {
		return explain(ctx, err)
	}
	if out.Name != k.uri.Name {
		return fmt.Errorf("%w: Cloud KMS answered for %q, not %s", signer.ErrKey, out.Name, k.uri.Name)
	}
	if !intact([]byte(out.Pem), out.PemCrc32C) {
		return fmt.Errorf("%w: Cloud KMS's public key: %w; try again", signer.ErrUnavailable, ErrDamaged)
	}
	if err := k.checkProtection(out.ProtectionLevel); err != nil {
		return err
	}
	block, rest := pem.Decode([]byte(out.Pem))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return fmt.Errorf("%w: Cloud KMS returned no public key in PEM", signer.ErrKey)
	}
	public, err := signer.ParsePublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", signer.ErrKey, out.Algorithm, err)
	}
	a := algorithmOf(out.Algorithm)
	if !a.Fits(public.Key()) {
		return fmt.Errorf("%w: a key of %s does not sign here; make one of EC_SIGN_P256_SHA256, EC_SIGN_P384_SHA384, EC_SIGN_ED25519, RSA_SIGN_PSS_*_SHA256 or RSA_SIGN_PKCS1_*_SHA256", signer.ErrKey, out.Algorithm)
	}
	if wanted != "" && public.KeyID() != wanted {
		return fmt.Errorf("%w: %s is key %s, not %s, which is expected", signer.ErrKey, k.uri.Name, public.KeyID(), wanted)
	}
	k.public, k.algorithm = public, a
	return nil
}

// checkState looks whether the version is enabled, where these credentials may
// look: a role that only signs may not, and learns it by the next call.
func (k *key) checkState(ctx context.Context) error {
	out, err := k.client.GetCryptoKeyVersion(ctx, &kmspb.GetCryptoKeyVersionRequest{Name: k.uri.Name}, onQuotaOnly())
	if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unimplemented {
		return nil
	}
	if err != nil {
		return explain(ctx, err)
	}
	if out.State != kmspb.CryptoKeyVersion_ENABLED {
		return fmt.Errorf("%w: the key version is %s: enable it (gcloud kms keys versions enable), or use another", signer.ErrKey, out.State)
	}
	return nil
}

func (k *key) checkProtection(level kmspb.ProtectionLevel) error {
	wanted := k.uri.Protection
	if wanted == "" && k.uri.Insecure {
		return nil // a test service protects nothing, whatever it says
	}
	if wanted == "" {
		wanted = ProtectionHSM
	}
	ok := false
	switch wanted {
	case ProtectionHSM:
		ok = level == kmspb.ProtectionLevel_HSM || level == kmspb.ProtectionLevel_HSM_SINGLE_TENANT
	case ProtectionExternal:
		ok = level == kmspb.ProtectionLevel_EXTERNAL || level == kmspb.ProtectionLevel_EXTERNAL_VPC
	case ProtectionSoftware:
		ok = level == kmspb.ProtectionLevel_SOFTWARE
	}
	if !ok {
		return fmt.Errorf("%w: the key's protection level is %s, and the URI wants %s: use an HSM key, or say protection= in the URI", signer.ErrKey, level, wanted)
	}
	return nil
}

func algorithmOf(a kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm) signer.Algorithm {
	switch a {
	case kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256:
		return signer.ECDSAP256SHA256
	case kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384:
		return signer.ECDSAP384SHA384
	case kmspb.CryptoKeyVersion_EC_SIGN_ED25519:
		return signer.Ed25519
	case kmspb.CryptoKeyVersion_RSA_SIGN_PSS_2048_SHA256, kmspb.CryptoKeyVersion_RSA_SIGN_PSS_3072_SHA256, kmspb.CryptoKeyVersion_RSA_SIGN_PSS_4096_SHA256:
		return signer.RSAPSSSHA256
	case kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256, kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_3072_SHA256, kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_4096_SHA256:
		return signer.RSAPKCS1SHA256
	}
	return ""
}
