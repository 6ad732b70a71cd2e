// Package gcpkms signs with one key version of Google Cloud KMS, through
// Google's own client.
//
// What is sent and what comes back carries a CRC32C, checked on both sides.
// Only requests refused for a quota are asked again, a few times, with back-off
// and jitter. Every other failure is told at once, for the caller to decide.
package gcpkms

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kernelgate/kernelgate/signer"
)

// DefaultCallTimeout bounds one signature with its retries.
const DefaultCallTimeout = 10 * time.Second

// maxReply bounds a reply, in bytes; one with an attestation takes some 20,000.
const maxReply = 1 << 20

// Options are what a URI does not say. Zero values take the defaults.
type Options struct {
	// KeyID, if set, is the key expected (signer.PublicKey.KeyID): another is refused.
	KeyID string
	// CallTimeout bounds opening, and each signature with its retries. The
	// caller's context may end it sooner.
	CallTimeout time.Duration
}

// Open fetches the public key, once, and checks that the version is enabled,
// protected as the URI says and made to sign. Errors wrap
// signer.ErrUnavailable, ErrBusy (over quota) or ErrKey, and say what to do.
// The Signer checks each signature (signer.Verified).
func Open(ctx context.Context, u URI, opts Options) (signer.Signer, error) {
	if opts.CallTimeout <= 0 {
		opts.CallTimeout = DefaultCallTimeout
	}
	within, cancel := context.WithTimeout(ctx, opts.CallTimeout)
	defer cancel()
	k := &key{uri: u, timeout: opts.CallTimeout}
	var err error
	// The client keeps this context for its credentials, beyond Open.
	if k.client, err = kms.NewKeyManagementClient(context.WithoutCancel(ctx), u.clientOptions()...); err != nil {
		return nil, fmt.Errorf("%w: Cloud KMS: no client; log in (gcloud auth application-default login) or give this machine a service account: %w", signer.ErrUnavailable, err)
	}
	if err := k.load(within, opts.KeyID); err != nil {
		_ = k.Close() // the first error counts
		return nil, err
	}
	return signer.Verified(k), nil
}

func (u URI) clientOptions() []option.ClientOption {
	options := []option.ClientOption{
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply))),
	}
	if u.Endpoint != "" {
		options = append(options, option.WithEndpoint(u.Endpoint))
	}
	if u.Insecure {
		options = append(options, option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	return options
}

// key is one key version: the Signer that Open wraps.
type key struct {
	uri       URI
	client    *kms.KeyManagementClient
	timeout   time.Duration
	public    signer.PublicKey
	algorithm signer.Algorithm
	closed    atomic.Bool
	once      sync.Once
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
	in := k.request(message)
	out, err := k.client.AsymmetricSign(ctx, in, onQuotaOnly())
	if err != nil {
		if k.closed.Load() {
			return nil, errClosed
		}
		return nil, explain(ctx, err)
	}
	if err := k.checkReply(in, out); err != nil {
		return nil, err
	}
	return signer.LowS(k.public, out.Signature)
}

func (k *key) request(message []byte) *kmspb.AsymmetricSignRequest {
	in := &kmspb.AsymmetricSignRequest{Name: k.uri.Name}
	digest := signer.Digest(k.algorithm, message)
	switch k.algorithm {
	case signer.Ed25519:
		in.Data, in.DataCrc32C = message, checksum(message)
		return in
	case signer.ECDSAP384SHA384:
		in.Digest = &kmspb.Digest{Digest: &kmspb.Digest_Sha384{Sha384: digest}}
	default:
		in.Digest = &kmspb.Digest{Digest: &kmspb.Digest_Sha256{Sha256: digest}}
	}
	in.DigestCrc32C = checksum(digest)
	return in
}

func (k *key) Close() (err error) {
	k.closed.Store(true)
	k.once.Do(func() { err = k.client.Close() })
	return err
}

var errClosed = fmt.Errorf("Cloud KMS signer: %w", os.ErrClosed) //nolint:staticcheck // a name
