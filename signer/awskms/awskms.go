package awskms

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/kernelgate/kernelgate/signer"
)

// DefaultCallTimeout bounds one signature with its retries.
const DefaultCallTimeout = 10 * time.Second

// probe is what the dry run at Open would sign. It is no DSSE encoding, so a
// service that ignores DryRun signs nothing of worth.
const probe = "kernelgate: may this key sign?"

// Options are what a URI does not say. Zero values take the defaults.
type Options struct {
	// KeyID, if set, is the key expected (signer.PublicKey.KeyID): another is refused.
	KeyID string
	// CallTimeout bounds opening, and each signature with its retries. The
	// caller's context may end it sooner.
	CallTimeout time.Duration
}

// Open fetches the public key, once, and asks KMS by a dry run whether the key
// may sign. Errors wrap signer.ErrUnavailable, ErrBusy (throttled) or ErrKey,
// and say what to do. The Signer checks each signature (signer.Verified).
func Open(ctx context.Context, u URI, opts Options) (signer.Signer, error) {
	if opts.CallTimeout <= 0 {
		opts.CallTimeout = DefaultCallTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, opts.CallTimeout)
	defer cancel()
	c, err := connect(ctx, u)
	if err != nil {
		return nil, err
	}
	k := &key{uri: u, client: c, timeout: opts.CallTimeout}
	if err := k.load(ctx, opts.KeyID); err != nil {
		c.close()
		return nil, err
	}
	if err := k.dryRun(ctx); err != nil {
		c.close()
		return nil, err
	}
	return signer.Verified(k), nil
}

// key is one key of KMS: the Signer that Open wraps.
type key struct {
	uri       URI
	client    *client
	timeout   time.Duration
	public    signer.PublicKey
	arn       string // as the service told, "" where it did not
	algorithm signer.Algorithm
	closed    atomic.Bool
}

func (k *key) Public() signer.PublicKey    { return k.public }
func (k *key) Algorithm() signer.Algorithm { return k.algorithm }

// Sign returns by ctx's deadline or CallTimeout, whichever is sooner.
func (k *key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if err := signer.CheckHardwareMessage(k.algorithm, message); err != nil {
		return nil, err
	}
	if k.closed.Load() {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	out, err := k.client.api.Sign(ctx, k.request(message))
	if err != nil {
		if k.closed.Load() {
			return nil, errClosed
		}
		return nil, k.client.explain(ctx, err)
	}
	if err := k.sameKey(message, out); err != nil {
		return nil, err
	}
	return signer.LowS(k.public, out.Signature)
}

// sameKey gives an alias that was moved its name. A service may name one key in
// two ways, so the signature decides.
func (k *key) sameKey(message []byte, out *kms.SignOutput) error {
	name := aws.ToString(out.KeyId)
	if name == "" || k.arn == "" || name == k.arn || signer.Verify(k.algorithm, k.public, message, out.Signature) == nil {
		return nil
	}
	return fmt.Errorf("%w: %s names %s now, and named %s when it was opened; name the key by its ARN", signer.ErrKey, k.uri.Key, name, k.arn)
}

func (k *key) request(message []byte) *kms.SignInput {
	in := &kms.SignInput{
		KeyId:            aws.String(k.uri.Key),
		Message:          signer.Digest(k.algorithm, message),
		MessageType:      types.MessageTypeDigest,
		SigningAlgorithm: spec(k.algorithm),
	}
	if k.algorithm == signer.Ed25519 {
		in.MessageType = types.MessageTypeRaw
	}
	return in
}

// dryRun makes a disabled key or a missing permission known when the key is
// opened instead of when it is needed. It takes the permission of Sign alone.
// A service that knows no dry run signs the probe, which is of no worth.
func (k *key) dryRun(ctx context.Context) error {
	in := k.request([]byte(probe))
	in.DryRun = aws.Bool(true)
	out, err := k.client.api.Sign(ctx, in)
	var would *types.DryRunOperationException
	switch {
	case errors.As(err, &would):
		return nil
	case err != nil && !knowsNoDryRun(err):
		return k.client.explain(ctx, err)
	case err != nil:
		in.DryRun = nil
		if out, err = k.client.api.Sign(ctx, in); err != nil {
			return k.client.explain(ctx, err)
		}
	}
	return k.checkProbe(out.Signature)
}

// checkProbe tells early of a service whose signatures are not the protocol's.
// Such are known whose RSA-PSS has another salt than AWS's, of 32 bytes.
func (k *key) checkProbe(sig []byte) error {
	err := signer.Verify(k.algorithm, k.public, []byte(probe), sig)
	if err == nil {
		return nil
	}
	if k.algorithm == signer.RSAPSSSHA256 {
		return fmt.Errorf("%w: %s signs with another PSS salt than AWS KMS (32 bytes): add algorithm=rsa-pkcs1-sha256 to the URI: %w", signer.ErrBadSignature, k.client.endpoint, err)
	}
	return fmt.Errorf("%w: by %s with %s: %w", signer.ErrBadSignature, k.client.endpoint, k.uri.Key, err)
}

// knowsNoDryRun reports whether a service may have refused the parameter and
// not the key; services that are compatible with KMS name that in many ways.
func knowsNoDryRun(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorFault() == smithy.FaultServer {
		return false
	}
	switch api.ErrorCode() {
	case "ValidationException", "UnsupportedOperationException", "SerializationException", "UnknownOperationException",
		"InvalidParameterException", "InvalidParameterValue", "UnknownParameter", "NotImplemented", "NotImplementedException", "UnknownError":
		return true
	}
	return false
}

func (k *key) Close() error {
	if !k.closed.Swap(true) {
		k.client.close()
	}
	return nil
}

var errClosed = fmt.Errorf("AWS KMS signer: %w", os.ErrClosed)
