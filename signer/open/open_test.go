package open_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms/awskmstest"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/gcpkms/gcpkmstest"
	"github.com/kernelgate/kernelgate/signer/open"
)

func TestOpenFile(t *testing.T) {
	u, public, err := filekey.Generate(filepath.Join(t.TempDir(), "k"), signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open.Open(t.Context(), u.String(), open.Options{KeyID: public.KeyID()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Public().Equal(public) {
		t.Fatal("another key was opened")
	}
	other := strings.Repeat("0", 64)
	if s, err := open.Open(t.Context(), u.String(), open.Options{KeyID: other}); !errors.Is(err, signer.ErrKey) || s != nil {
		t.Fatalf("another key expected: got %v, want ErrKey", err)
	}
}

func TestOpenAWSKMS(t *testing.T) {
	u, err := awskmstest.New(t).CreateKey(signer.ECDSAP256SHA256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open.Open(t.Context(), u.String(), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
		t.Fatal(err)
	}
	if s, err := open.Open(t.Context(), u.String(), open.Options{KeyID: strings.Repeat("0", 64)}); !errors.Is(err, signer.ErrKey) || s != nil {
		t.Fatalf("another key expected: got %v, want ErrKey", err)
	}
}

func TestOpenGCPKMS(t *testing.T) {
	u, err := gcpkmstest.New(t).CreateKey(signer.ECDSAP256SHA256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open.Open(t.Context(), u.String(), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
		t.Fatal(err)
	}
	if s, err := open.Open(t.Context(), u.String(), open.Options{KeyID: strings.Repeat("0", 64)}); !errors.Is(err, signer.ErrKey) || s != nil {
		t.Fatalf("another key expected: got %v, want ErrKey", err)
	}
}

func TestUnknownSchemeListsTheKnown(t *testing.T) {
	for _, uri := range []string{"", "/path", "vault:x", "pkcs11"} {
		_, err := open.Open(t.Context(), uri, open.Options{})
		if err == nil {
			t.Fatalf("%q was opened", uri)
		}
		for _, scheme := range []string{"pkcs11:", "awskms:", "gcpkms:", "file:"} {
			if !strings.Contains(err.Error(), scheme) {
				t.Errorf("%q: the error does not name %s: %v", uri, scheme, err)
			}
		}
	}
}

func TestPINNeverInErrors(t *testing.T) {
	_, err := open.Open(t.Context(), "pkcs11:token=t?module-path=/nonexistent.so&pin-value=271828", open.Options{})
	if err == nil || strings.Contains(err.Error(), "271828") {
		t.Fatalf("got %v", err)
	}
	s, err := open.Open(t.Context(), "pkcs11:token=t?module-path=/nonexistent.so&pin-source=file:/p", open.Options{})
	if !errors.Is(err, signer.ErrUnavailable) || s != nil {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
}
