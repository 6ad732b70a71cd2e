package awskms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/kernelgate/kernelgate/signer"
)

// advice is which error of ours a code of the service is, and what helps.
type advice struct {
	class error
	next  string
}

// adviceFor knows the codes of KMS and of AWS's request signing
// (https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html).
func adviceFor(code string) advice {
	switch code {
	case "AccessDeniedException", "AccessDenied":
		return advice{signer.ErrKey, "these credentials may not use the key: allow kms:GetPublicKey and kms:Sign on it, in the key policy or in IAM"}
	case "NotFoundException":
		return advice{signer.ErrKey, "no such key or alias in this account and region: check the URI's key and region"}
	case "DisabledException":
		return advice{signer.ErrKey, "the key is disabled: enable it (aws kms enable-key), or use another"}
	case "KMSInvalidStateException":
		return advice{signer.ErrKey, "the key's state does not let it sign; if its deletion is scheduled, cancel that (aws kms cancel-key-deletion) and enable the key"}
	case "InvalidKeyUsageException", "UnsupportedOperationException":
		return advice{signer.ErrKey, "the key is not of a kind that signs so: make one with key usage SIGN_VERIFY and a key spec of the documentation"}
	case "ValidationException", "InvalidArnException":
		return advice{signer.ErrKey, "KMS does not take the request: check the URI's key, region and algorithm"}
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired":
		return advice{signer.ErrUnavailable, "the AWS credentials have expired: renew them (aws sso login, or the role's session); if they are new, set this machine's clock"}
	case "UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired":
		return advice{signer.ErrUnavailable, "AWS does not know these credentials: check the profile, or the AWS_ variables of this process"}
	case "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "RequestTimeTooSkewed", "RequestInTheFuture":
		return advice{signer.ErrUnavailable, "AWS refuses how the request is signed: set this machine's clock, then check the secret access key and the region"}
	}
	if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
		return advice{signer.ErrBusy, "KMS throttles this account: sign less often at once, or raise the quota of cryptographic operations"}
	}
	return advice{signer.ErrUnavailable, "try again later"}
}

// explain turns an error of the SDK into one of signer's, with what to do next.
func (c *client) explain(ctx context.Context, err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		a := adviceFor(api.ErrorCode())
		// A deadline that ended the retries is told beside their reason.
		return errors.Join(fmt.Errorf("%w: %s: %w", a.class, a.next, err), ctx.Err())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %s did not answer in time: %w", signer.ErrUnavailable, c.endpoint, ctx.Err())
	}
	if err := c.checkCredentials(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: no reply from %s: check the network, the URI's region and endpoint: %w", signer.ErrUnavailable, c.endpoint, err)
}

// checkCredentials takes what the SDK has cached, or finds them now.
func (c *client) checkCredentials(ctx context.Context) error {
	if c.credentials == nil {
		return fmt.Errorf("%w: no AWS credentials are configured", signer.ErrUnavailable)
	}
	if _, err := c.credentials.Retrieve(ctx); err != nil {
		return fmt.Errorf("%w: no AWS credentials: set a profile (profile= in the URI), the AWS_ variables, or a role for this machine: %w", signer.ErrUnavailable, err)
	}
	return nil
}
