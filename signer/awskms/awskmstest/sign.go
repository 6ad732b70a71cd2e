package awskmstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
)

// maxMessage is KMS's limit of a message, in bytes.
const maxMessage = 4096

func (k *key) sign(private crypto.Signer, in request, f Fault) (any, error) {
	if k.usage != "SIGN_VERIFY" || !slices.Contains(k.algorithms, in.SigningAlgorithm) {
		return nil, fail("InvalidKeyUsageException", in.SigningAlgorithm+" is not for a key of "+k.spec)
	}
	digest, options, err := toSign(in)
	if err != nil {
		return nil, err
	}
	if in.DryRun && !f.DryRuns {
		return nil, fail("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
	}
	if _, pss := options.(*rsa.PSSOptions); pss && f.LongSalt {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: options.HashFunc()}
	}
	sig, err := private.Sign(rand.Reader, digest, options)
	if err != nil {
		return nil, err
	}
	if f.Corrupt {
		sig[len(sig)-1] ^= 1
	}
	if f.Terse {
		return map[string]any{"KeyId": k.id, "Signature": sig}, nil
	}
	return map[string]any{"KeyId": k.arn(), "Signature": sig, "SigningAlgorithm": in.SigningAlgorithm}, nil
}

// toSign is what the private key takes: a digest, or for Ed25519 the message.
func toSign(in request) ([]byte, crypto.SignerOpts, error) {
	if len(in.Message) > maxMessage {
		return nil, nil, fail("ValidationException", "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length less than or equal to 4096")
	}
	raw := in.MessageType == "RAW" || in.MessageType == ""
	if !raw && in.MessageType != "DIGEST" {
		return nil, nil, fail("ValidationException", "unknown MessageType")
	}
	if in.SigningAlgorithm == "ED25519_SHA_512" {
		if !raw {
			return nil, nil, fail("ValidationException", "ED25519_SHA_512 requires MessageType RAW")
		}
		return in.Message, crypto.Hash(0), nil
	}
	hash := crypto.SHA256
	if strings.HasSuffix(in.SigningAlgorithm, "SHA_384") {
		hash = crypto.SHA384
	} else if !strings.HasSuffix(in.SigningAlgorithm, "SHA_256") {
		return nil, nil, fail("UnsupportedOperationException", "this server does not sign by "+in.SigningAlgorithm)
	}
	digest := in.Message
	if raw {
		h := hash.New()
		h.Write(digest)
		digest = h.Sum(nil)
	}
	if len(digest) != hash.Size() {
		return nil, nil, fail("ValidationException", "Digest is invalid length for algorithm "+in.SigningAlgorithm)
	}
	if strings.HasPrefix(in.SigningAlgorithm, "RSASSA_PSS") {
		return digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}, nil
	}
	return digest, hash, nil
}
