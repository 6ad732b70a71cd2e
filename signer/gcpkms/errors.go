package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kernelgate/kernelgate/signer"
)

// maxAttempts is one try and its retries when over quota.
const maxAttempts = 5

// onQuotaOnly replaces the client's retries, which go on for a minute and ask
// again for what was lost on the way.
func onQuotaOnly() gax.CallOption {
	return gax.WithRetry(func() gax.Retryer {
		return &retryer{backOff: gax.Backoff{Initial: 200 * time.Millisecond, Max: 2 * time.Second, Multiplier: 2}}
	})
}

type retryer struct {
	backOff gax.Backoff // a random pause of up to its present bound
	tried   int
}

func (r *retryer) Retry(err error) (time.Duration, bool) {
	r.tried++
	if r.tried >= maxAttempts || status.Code(err) != codes.ResourceExhausted {
		return 0, false
	}
	return r.backOff.Pause(), true
}

// explain turns an error of the client into one of signer's, with what to do next.
func explain(ctx context.Context, err error) error {
	class, next := signer.ErrUnavailable, "try again later"
	switch status.Code(err) {
	case codes.ResourceExhausted:
		class, next = signer.ErrBusy, "over quota: sign less often at once, or raise the project's quota of cryptographic requests"
	case codes.PermissionDenied:
		class, next = signer.ErrKey, "these credentials may not use the key: grant roles/cloudkms.signerVerifier on it"
	case codes.NotFound:
		class, next = signer.ErrKey, "no such key version: check each part of its name"
	case codes.FailedPrecondition:
		class, next = signer.ErrKey, "the key version is not enabled, or not made to sign: see its state (gcloud kms keys versions describe)"
	case codes.InvalidArgument:
		class, next = signer.ErrKey, "Cloud KMS does not take the request: check the name and the key's algorithm"
	case codes.Unauthenticated:
		next = "the credentials are refused or have expired: log in again (gcloud auth application-default login), and set this machine's clock"
	case codes.Unavailable:
		next = "no reply: check the network and the URI's endpoint"
	}
	cause := ctx.Err()
	if cause == nil && status.Code(err) == codes.DeadlineExceeded {
		cause = context.DeadlineExceeded // the service's clock was a moment ahead of ctx
	}
	if cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return fmt.Errorf("%w: Cloud KMS: %s: %w", class, next, err)
}
