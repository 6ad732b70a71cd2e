package awskms_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/awskms/awskmstest"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

func newKey(t *testing.T, server *awskmstest.Server, a signer.Algorithm) awskms.URI {
	t.Helper()
	u, err := server.CreateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func openKey(t *testing.T, u awskms.URI) signer.Signer {
	t.Helper()
	s, err := awskms.Open(t.Context(), u, awskms.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	server := awskmstest.New(t)
	uris := map[signer.Algorithm]awskms.URI{}
	for _, a := range signertest.Algorithms {
		uris[a] = newKey(t, server, a)
	}
	signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
		u, err := awskms.ParseURI(uris[a].String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := awskms.Open(t.Context(), u, awskms.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, signertest.Algorithms...)
}

// TestSignFaults: each fault has its error in time, and the same signer signs
// again once it is over.
func TestSignFaults(t *testing.T) {
	server := awskmstest.New(t)
	s := openKey(t, newKey(t, server, signer.ECDSAP256SHA256))
	cases := map[string]struct {
		fault    awskmstest.Fault
		want     error
		attempts int
	}{
		"throttled without end": {awskmstest.Fault{Code: "ThrottlingException"}, signer.ErrBusy, 5},
		"access denied":         {awskmstest.Fault{Code: "AccessDeniedException"}, signer.ErrKey, 1},
		"expired credentials":   {awskmstest.Fault{Code: "ExpiredTokenException"}, signer.ErrUnavailable, 1},
		"clock":                 {awskmstest.Fault{Code: "RequestTimeTooSkewed"}, signer.ErrUnavailable, 1},
		"internal error":        {awskmstest.Fault{Code: "KMSInternalException", Status: 500}, signer.ErrUnavailable, 1},
		"reply lost":            {awskmstest.Fault{Drop: true}, signer.ErrUnavailable, 1},
		"another key":           {awskmstest.Fault{OtherKey: true}, signer.ErrBadSignature, 1},
		"corrupt signature":     {awskmstest.Fault{Corrupt: true}, signer.ErrBadSignature, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server.Set(c.fault)
			before := server.Calls("Sign")
			sig, err := s.Sign(t.Context(), []byte("m"))
			if !errors.Is(err, c.want) || sig != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if n := server.Calls("Sign") - before; n != c.attempts {
				t.Fatalf("%d requests, want %d", n, c.attempts)
			}
			server.Set(awskmstest.Fault{})
			if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
				t.Fatalf("after the fault: %v", err)
			}
		})
	}
}

func TestThrottlingThatEndsIsNotSeen(t *testing.T) {
	server := awskmstest.New(t)
	s := openKey(t, newKey(t, server, signer.Ed25519))
	before := server.Calls("Sign")
	server.Set(awskmstest.Fault{Code: "ThrottlingException", Times: 2})
	if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
		t.Fatal(err)
	}
	if n := server.Calls("Sign") - before; n != 3 {
		t.Fatalf("%d requests, want 3", n)
	}
}

func TestDeadlines(t *testing.T) {
	server := awskmstest.New(t)
	u := newKey(t, server, signer.ECDSAP384SHA384)
	s, err := awskms.Open(t.Context(), u, awskms.Options{CallTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, fault := range map[string]awskmstest.Fault{"slow": {Delay: time.Minute}, "throttled": {Code: "ThrottlingException"}} {
		server.Set(fault)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		_, err := s.Sign(ctx, []byte("m"))
		cancel()
		if took := time.Since(start); took > 20*time.Second || !errors.Is(err, signer.ErrUnavailable) && !errors.Is(err, signer.ErrBusy) {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	server.Set(awskmstest.Fault{Delay: time.Minute})
	if _, err := s.Sign(context.Background(), []byte("m")); !errors.Is(err, signer.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("CallTimeout: got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	server := awskmstest.New(t)
	key := func() awskms.URI { return newKey(t, server, signer.ECDSAP256SHA256) }
	disabled, deleted, decrypts, missing, misfit := key(), key(), key(), key(), key()
	server.SetState(disabled, awskmstest.Disabled)
	server.SetState(deleted, awskmstest.PendingDeletion)
	server.SetUsage(decrypts, "ENCRYPT_DECRYPT")
	missing.Key = "alias/none"
	misfit.Algorithm = signer.Ed25519
	for name, c := range map[string]struct {
		uri  awskms.URI
		says string
	}{
		"disabled":         {disabled, "enable"},
		"pending deletion": {deleted, "cancel-key-deletion"},
		"not for signing":  {decrypts, "SIGN_VERIFY"},
		"missing":          {missing, "no such key"},
		"wrong algorithm":  {misfit, "does not fit"},
	} {
		s, err := awskms.Open(t.Context(), c.uri, awskms.Options{})
		if !errors.Is(err, signer.ErrKey) || s != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want ErrKey that says %q", name, err, c.says)
		}
	}
	if s, err := awskms.Open(t.Context(), key(), awskms.Options{KeyID: strings.Repeat("0", 64)}); !errors.Is(err, signer.ErrKey) || s != nil {
		t.Errorf("another key expected: got %v", err)
	}
}

func TestCredentialsAndEndpoint(t *testing.T) {
	server := awskmstest.New(t)
	u := newKey(t, server, signer.ECDSAP256SHA256)
	open := func(what, says string, u awskms.URI) {
		t.Helper()
		s, err := awskms.Open(t.Context(), u, awskms.Options{CallTimeout: 5 * time.Second})
		if !errors.Is(err, signer.ErrUnavailable) || s != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want ErrUnavailable that says %q", what, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%s: the error holds the secret", what)
		}
	}
	away := u
	away.Endpoint = "http://127.0.0.1:1"
	open("nobody listens", "no reply from", away)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
	open("wrong secret", "set this machine's clock", u)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
	open("unknown access key", "does not know these credentials", u)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	open("none", "no AWS credentials", u)
}

func TestAliasThatMovesIsNoticed(t *testing.T) {
	server := awskmstest.New(t)
	u := server.Alias("approver", newKey(t, server, signer.ECDSAP256SHA256))
	s := openKey(t, u)
	server.Alias("approver", newKey(t, server, signer.ECDSAP256SHA256))
	if sig, err := s.Sign(t.Context(), []byte("m")); !errors.Is(err, signer.ErrKey) || sig != nil {
		t.Fatalf("got %v, want ErrKey", err)
	}
}

// Services that speak KMS's protocol leave out one thing or another.
func TestLesserServices(t *testing.T) {
	server := awskmstest.New(t)
	for name, fault := range map[string]awskmstest.Fault{"no dry run": {NoDryRun: true}, "terse": {Terse: true}, "both": {NoDryRun: true, Terse: true}, "signs in a dry run": {DryRuns: true, Terse: true}} {
		t.Run(name, func(t *testing.T) {
			u := newKey(t, server, signer.ECDSAP256SHA256)
			server.Set(fault)
			s := openKey(t, u)
			if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
				t.Fatal(err)
			}
			server.SetState(u, awskmstest.Disabled)
			if s, err := awskms.Open(t.Context(), u, awskms.Options{}); !errors.Is(err, signer.ErrKey) || s != nil {
				t.Errorf("disabled: got %v, want ErrKey", err)
			}
		})
	}
}

// A service with another PSS salt is told when the key is opened, not at the
// first approval; the same key signs by PKCS #1.
func TestAnotherSalt(t *testing.T) {
	server := awskmstest.New(t)
	u := newKey(t, server, signer.RSAPSSSHA256)
	for name, fault := range map[string]awskmstest.Fault{"signs in a dry run": {DryRuns: true, LongSalt: true}, "no dry run": {NoDryRun: true, LongSalt: true}} {
		server.Set(fault)
		u.Algorithm = ""
		if s, err := awskms.Open(t.Context(), u, awskms.Options{}); !errors.Is(err, signer.ErrBadSignature) || s != nil || !strings.Contains(err.Error(), "algorithm=rsa-pkcs1-sha256") {
			t.Errorf("%s: got %v", name, err)
		}
		u.Algorithm = signer.RSAPKCS1SHA256
		if _, err := openKey(t, u).Sign(t.Context(), []byte("m")); err != nil {
			t.Errorf("%s, PKCS #1: %v", name, err)
		}
	}
}
