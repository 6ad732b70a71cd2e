package awskms

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/kernelgate/kernelgate/signer"
)

// load fetches the public key and checks that it is the one wanted.
func (k *key) load(ctx context.Context, wanted string) error {
	out, err := k.client.api.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(k.uri.Key)})
	if err != nil {
		return k.client.explain(ctx, err)
	}
	if out.KeyUsage != types.KeyUsageTypeSignVerify && out.KeyUsage != "" { // a service that leaves it out is judged by its signature
		return fmt.Errorf("%w: %s is for %s; a signing key has key usage SIGN_VERIFY, which is fixed when it is made", signer.ErrKey, k.uri.Key, out.KeyUsage)
	}
	public, err := signer.ParsePublicKey(out.PublicKey)
	if err != nil {
		return fmt.Errorf("%w: %s (%s): %w; make a key of ECC_NIST_P256, ECC_NIST_P384, ECC_NIST_EDWARDS25519 or RSA_2048 and up",
			signer.ErrKey, k.uri.Key, out.KeySpec, err)
	}
	a := k.uri.Algorithm
	if a == "" {
		a = signer.DefaultAlgorithm(public.Key())
	}
	if !a.Fits(public.Key()) {
		return fmt.Errorf("%w: algorithm %s does not fit the %s key %s", signer.ErrKey, a, out.KeySpec, k.uri.Key)
	}
	if len(out.SigningAlgorithms) > 0 && !slices.Contains(out.SigningAlgorithms, spec(a)) {
		return fmt.Errorf("%w: KMS does not sign by %s with %s, only by %v", signer.ErrKey, spec(a), k.uri.Key, out.SigningAlgorithms)
	}
	if wanted != "" && public.KeyID() != wanted {
		return fmt.Errorf("%w: %s is key %s, not %s, which is expected", signer.ErrKey, k.uri.Key, public.KeyID(), wanted)
	}
	k.public, k.algorithm, k.arn = public, a, aws.ToString(out.KeyId)
	return nil
}

func spec(a signer.Algorithm) types.SigningAlgorithmSpec {
	switch a {
	case signer.ECDSAP256SHA256:
		return types.SigningAlgorithmSpecEcdsaSha256
	case signer.ECDSAP384SHA384:
		return types.SigningAlgorithmSpecEcdsaSha384
	case signer.Ed25519:
		return types.SigningAlgorithmSpecEd25519Sha512
	case signer.RSAPSSSHA256:
		return types.SigningAlgorithmSpecRsassaPssSha256
	case signer.RSAPKCS1SHA256:
		return types.SigningAlgorithmSpecRsassaPkcs1V15Sha256
	}
	return ""
}
