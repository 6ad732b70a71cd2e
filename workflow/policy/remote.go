package policy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	maxAnswer      = 1 << 20
	defaultTimeout = 5 * time.Second
)

// RemoteOptions say how an OPA server is asked. The zero value is usable.
type RemoteOptions struct {
	// Digest names the policy that the operator has loaded into the server,
	// which the gateway cannot see. Where it is zero, the digest is the SHA-256
	// of the server's URL, and names the place, not the policy.
	Digest  envelope.Digest
	Timeout time.Duration // of one question; 5 s where it is zero
	Token   string        // sent as a bearer token, where there is one
	TLS     *tls.Config   // nil for the system's roots
	// Plaintext allows http to a host that is not this one.
	Plaintext bool
}

// RemotePolicy is a policy in an OPA server. It is safe for concurrent use.
type RemotePolicy struct {
	endpoint string
	engine   string
	digest   envelope.Digest
	token    string
	client   *http.Client
}

var _ workflow.Opaque = (*RemotePolicy)(nil)

// Remote asks the OPA server at base, such as "http://127.0.0.1:8181", by its
// REST data API: POST /v1/data/kernelgate/sentinelnet.
func Remote(base string, options RemoteOptions) (*RemotePolicy, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("policy: the OPA server's address is not a URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("policy: the OPA server's address must be http(s)://HOST[:PORT][/PATH], without user, query and fragment")
	}
	if u.Scheme == "http" && !options.Plaintext && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("policy: http to %s lets anyone on the way answer; use https, or allow plaintext", u.Host)
	}
	digest := options.Digest
	if digest == (envelope.Digest{}) {
		digest = envelope.DigestOf([]byte(base))
	}
	return &RemotePolicy{
		endpoint: u.JoinPath("v1", "data", "kernelgate", "sentinelnet").String(),
		engine:   engineOf(u.Host),
		digest:   digest,
		token:    options.Token,
		client:   newClient(options),
	}, nil
}

func newClient(options RemoteOptions) *http.Client {
	timeout := options.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			TLSClientConfig:        options.TLS,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
		},
		// The question goes to whom the operator named, and to nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// engineOf is a Text(80).
func engineOf(host string) string {
	engine := "opa at " + host
	for utf8.RuneCountInString(engine) > 80 {
		_, size := utf8.DecodeLastRuneInString(engine)
		engine = engine[:len(engine)-size]
	}
	return engine
}

// Engine is "opa at HOST".
func (p *RemotePolicy) Engine() string { return p.engine }

// Digest is the operator's digest of the policy, or the SHA-256 of the
// server's URL.
func (p *RemotePolicy) Digest() envelope.Digest { return p.digest }

// Opaque says that nobody here sees the server's rules.
func (p *RemotePolicy) Opaque() {}

// Close gives up idle connections.
func (p *RemotePolicy) Close() { p.client.CloseIdleConnections() }

// Evaluate asks the server once. Whoever does not answer in the right form and
// in time has denied.
func (p *RemotePolicy) Evaluate(ctx context.Context, input upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	document, err := p.ask(ctx, input)
	if err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: the OPA server: %w", err)
	}
	return decode(document)
}

func (p *RemotePolicy) ask(ctx context.Context, input upgrade.PolicyInput) (jsontext.Value, error) {
	question, err := json.Marshal(map[string]upgrade.PolicyInput{"input": input})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.endpoint, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d; see its log", response.StatusCode)
	}
	return result(response.Body)
}

// result is the answer's result member. OPA adds others, as it is configured.
func result(body io.Reader) (jsontext.Value, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	var answer struct {
		Result jsontext.Value `json:"result"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("its answer is not JSON of the data API: %w", err)
	}
	if answer.Result == nil {
		return nil, errors.New("it has no package kernelgate.sentinelnet; load the policy into it")
	}
	return answer.Result, nil
}
