package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/policy"
)

const defaultPolicyTime = 5 * time.Second

// Policy is SentinelNet: the built-in policy, one in a directory, or an OPA server.
type Policy struct {
	Dir       string          `yaml:"dir"`
	URL       string          `yaml:"url"`
	Digest    envelope.Digest `yaml:"digest"`    // names the policy that the server has
	TokenFile string          `yaml:"tokenFile"` // of the server
	Timeout   time.Duration   `yaml:"timeout"`   // of one question to the server
	Plaintext bool            `yaml:"plaintext"` // allows http to another host
}

func (p *Policy) settle(c *Config) error {
	if p.Dir != "" && p.URL != "" {
		return errors.New("set dir or url, not both")
	}
	if p.URL == "" && (p.TokenFile != "" || p.Plaintext || p.Digest != (envelope.Digest{})) {
		return errors.New("digest, tokenFile and plaintext belong to url, which is not set")
	}
	if p.Timeout <= 0 {
		return errors.New("timeout: set a positive one")
	}
	if p.Dir != "" {
		p.Dir = c.path(p.Dir)
	}
	if p.TokenFile != "" {
		p.TokenFile = c.path(p.TokenFile)
	}
	return nil
}

func openPolicy(p Policy) (workflow.Policy, error) {
	switch {
	case p.URL != "":
		return openRemotePolicy(p)
	case p.Dir != "":
		return policy.LoadDir(p.Dir)
	}
	return policy.Default()
}

func openRemotePolicy(p Policy) (workflow.Policy, error) {
	options := policy.RemoteOptions{Digest: p.Digest, Timeout: p.Timeout, Plaintext: p.Plaintext}
	if p.TokenFile != "" {
		token, err := readBounded(p.TokenFile, 16<<10)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		options.Token = strings.TrimSpace(string(token))
	}
	return policy.Remote(p.URL, options)
}

// guardPolicy is what the guard evaluates itself where the registry names a
// policy. A server's policy it cannot see, so it has none then.
func guardPolicy(p Policy) (workflow.Policy, error) {
	if p.URL != "" {
		return nil, nil
	}
	return openPolicy(p)
}
