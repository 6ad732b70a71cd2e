package awskms

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/kernelgate/kernelgate/signer"
)

const (
	// maxReply bounds a reply, in bytes; the longest, of an RSA-4096 key, takes
	// some 2,000.
	maxReply = 64 << 10
	// maxAttempts is one try and its retries when throttled.
	maxAttempts = 5
	backOff     = 100 * time.Millisecond // before the first retry; doubles
	maxBackOff  = 2 * time.Second
	// idle is shorter than services keep a silent connection, so that none is
	// used which the other side has just closed.
	idle = 20 * time.Second
)

// client is a connection to KMS of its own: nothing is shared among signers.
type client struct {
	api         *kms.Client
	http        closer // nil where the client has no connections to close
	credentials aws.CredentialsProvider
	endpoint    string // for errors
}

type closer interface{ CloseIdleConnections() }

func connect(ctx context.Context, u URI) (*client, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.IdleConnTimeout = idle })
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(transport)}
	if u.Region != "" {
		options = append(options, config.WithRegion(u.Region))
	}
	if u.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(u.Profile))
	}
	if isLoopback(u.Endpoint) {
		// A test service on this machine: its credentials are not the
		// instance's, and nothing else is asked.
		options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: AWS configuration: %w", signer.ErrUnavailable, err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("%w: no AWS region is known for %s: add region= to the URI", signer.ErrKey, u.Key)
	}
	c := &client{credentials: cfg.Credentials, endpoint: u.Endpoint}
	c.api = kms.NewFromConfig(cfg, func(o *kms.Options) {
		o.Retryer = newRetryer()
		if b, ok := o.HTTPClient.(*awshttp.BuildableClient); ok {
			o.HTTPClient = b.Freeze()
		}
		c.http, _ = o.HTTPClient.(closer)
		o.HTTPClient = limited{o.HTTPClient}
		if u.Endpoint != "" {
			o.BaseEndpoint = aws.String(u.Endpoint)
		}
	})
	if c.endpoint == "" {
		c.endpoint = "AWS KMS in " + cfg.Region
	}
	return c, c.checkCredentials(ctx)
}

// newRetryer asks again when throttled, and only then.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes}}
		o.RateLimiter = ratelimit.None // attempts are few enough to need no budget
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			limit := min(backOff<<min(max(attempt, 0), 10), maxBackOff)
			return limit/2 + rand.N(limit/2), nil //nolint:gosec // G404: jitter is no secret
		})
	})
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// limited cuts replies at maxReply, so that no service can fill the memory.
type limited struct{ kms.HTTPClient }

func (l limited) Do(r *http.Request) (*http.Response, error) {
	response, err := l.HTTPClient.Do(r)
	if err != nil {
		return nil, err
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxReply), response.Body}
	return response, nil
}
