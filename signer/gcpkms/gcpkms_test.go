package gcpkms_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/gcpkms/gcpkmstest"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

func newKey(t *testing.T, server *gcpkmstest.Server, a signer.Algorithm) gcpkms.URI {
	t.Helper()
	u, err := server.CreateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestConformance(t *testing.T) {
	server := gcpkmstest.New(t)
	uris := map[signer.Algorithm]gcpkms.URI{}
	for _, a := range signertest.Algorithms {
		uris[a] = newKey(t, server, a)
	}
	signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
		u, err := gcpkms.ParseURI(uris[a].String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := gcpkms.Open(t.Context(), u, gcpkms.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, signertest.Algorithms...)
}

// TestSignFaults: each fault has its error in time, and the same signer signs
// again once it is over.
func TestSignFaults(t *testing.T) {
	server := gcpkmstest.New(t)
	s, err := gcpkms.Open(t.Context(), newKey(t, server, signer.ECDSAP256SHA256), gcpkms.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cases := map[string]struct {
		fault    gcpkmstest.Fault
		want     error
		attempts int
	}{
		"over quota without end": {gcpkmstest.Fault{Code: codes.ResourceExhausted}, signer.ErrBusy, 5},
		"permission denied":      {gcpkmstest.Fault{Code: codes.PermissionDenied}, signer.ErrKey, 1},
		"credentials":            {gcpkmstest.Fault{Code: codes.Unauthenticated}, signer.ErrUnavailable, 1},
		"unavailable":            {gcpkmstest.Fault{Code: codes.Unavailable}, signer.ErrUnavailable, 1},
		"reply lost":             {gcpkmstest.Fault{Drop: true}, signer.ErrUnavailable, 1},
		"another key":            {gcpkmstest.Fault{OtherKey: true}, signer.ErrBadSignature, 1},
		"corrupt signature":      {gcpkmstest.Fault{Corrupt: true}, signer.ErrBadSignature, 1},
		"reply damaged":          {gcpkmstest.Fault{BadCRC: true}, gcpkms.ErrDamaged, 1},
		"request damaged":        {gcpkmstest.Fault{Unverified: true}, gcpkms.ErrDamaged, 1},
		"another name":           {gcpkmstest.Fault{OtherName: true}, signer.ErrKey, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server.Set(c.fault)
			before := server.Calls("AsymmetricSign")
			sig, err := s.Sign(t.Context(), []byte("m"))
			if !errors.Is(err, c.want) || sig != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if n := server.Calls("AsymmetricSign") - before; n != c.attempts {
				t.Fatalf("%d requests, want %d", n, c.attempts)
			}
			server.Set(gcpkmstest.Fault{Code: codes.ResourceExhausted, Times: 1})
			if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
				t.Fatalf("after the fault, throttled once: %v", err)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	server := gcpkmstest.New(t)
	s, err := gcpkms.Open(t.Context(), newKey(t, server, signer.Ed25519), gcpkms.Options{CallTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server.Set(gcpkmstest.Fault{Delay: time.Minute})
	start := time.Now()
	if _, err := s.Sign(context.Background(), []byte("m")); !errors.Is(err, signer.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 20*time.Second {
		t.Fatalf("got %v after %v", err, time.Since(start))
	}
}

func TestOpenRefuses(t *testing.T) {
	server := gcpkmstest.New(t)
	disabled, software, missing := newKey(t, server, signer.ECDSAP256SHA256), newKey(t, server, signer.Ed25519), newKey(t, server, signer.Ed25519)
	server.SetState(disabled, kmspb.CryptoKeyVersion_DISABLED)
	server.SetProtection(software, kmspb.ProtectionLevel_SOFTWARE)
	software.Protection = gcpkms.ProtectionHSM
	missing.Name = strings.Replace(missing.Name, "/ring/", "/other/", 1)
	open := func(u gcpkms.URI, keyID string) error {
		s, err := gcpkms.Open(t.Context(), u, gcpkms.Options{KeyID: keyID, CallTimeout: 5 * time.Second})
		if s != nil {
			_ = s.Close()
		}
		return err
	}
	for name, u := range map[string]gcpkms.URI{"disabled": disabled, "software": software, "missing": missing} {
		if err := open(u, ""); !errors.Is(err, signer.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
	software.Protection = gcpkms.ProtectionSoftware
	if err := open(software, ""); err != nil {
		t.Errorf("software, allowed: %v", err)
	}
	software.Protection = ""
	if err := open(software, ""); err != nil {
		t.Errorf("a test service's key of any protection: %v", err)
	}
	if err := open(software, strings.Repeat("0", 64)); !errors.Is(err, signer.ErrKey) {
		t.Errorf("another key expected: got %v", err)
	}
	server.Set(gcpkmstest.Fault{Operation: "GetCryptoKeyVersion", Code: codes.PermissionDenied})
	if err := open(software, ""); err != nil {
		t.Errorf("a role that only signs: %v", err)
	}
	if err := open(disabled, ""); !errors.Is(err, signer.ErrKey) {
		t.Errorf("disabled, with a role that only signs: got %v", err)
	}
	server.Set(gcpkmstest.Fault{Operation: "GetPublicKey", BadCRC: true})
	if err := open(software, ""); !errors.Is(err, gcpkms.ErrDamaged) {
		t.Errorf("public key damaged: got %v", err)
	}
	software.Endpoint = "127.0.0.1:1"
	if err := open(software, ""); !errors.Is(err, signer.ErrUnavailable) {
		t.Errorf("nobody listens: got %v", err)
	}
}

func TestParseURI(t *testing.T) {
	const name = "projects/p-1/locations/eu/keyRings/R_1/cryptoKeys/k/cryptoKeyVersions/12"
	for text, want := range map[string]gcpkms.URI{
		"gcpkms:" + name: {Name: name},
		"gcpkms:" + name + "?endpoint=127.0.0.1:1&insecure=true":           {Name: name, Endpoint: "127.0.0.1:1", Insecure: true},
		"gcpkms:" + name + "?protection=software&endpoint=kms.example:443": {Name: name, Endpoint: "kms.example:443", Protection: "software"},
	} {
		got, err := gcpkms.ParseURI(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if again, err := gcpkms.ParseURI(got.String()); err != nil || again != got {
			t.Errorf("%s: String %s gives %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "gcpkms:", "gcpkms:" + name + "?", "gcpkms:" + name + "x", "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k",
		"gcpkms:" + name + "?insecure=true", "gcpkms:" + name + "?insecure=true&endpoint=kms.example:443", "gcpkms:" + name + "?insecure=false",
		"gcpkms:" + name + "?endpoint=a", "gcpkms:" + name + "?endpoint=a:1&endpoint=a:1", "gcpkms:" + name + "?x=1", "gcpkms:" + name + "?protection=none"} {
		if u, err := gcpkms.ParseURI(text); err == nil {
			t.Errorf("%q is accepted: %+v", text, u)
		}
	}
}
