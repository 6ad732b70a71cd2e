package softhsm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/softhsm"
)

func newEnv(t *testing.T) *softhsm.Env {
	t.Helper()
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	env, err := softhsm.New(filepath.Join(t.TempDir(), "hsm"))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestProvisioning(t *testing.T) {
	env := newEnv(t)
	token, err := env.CreateToken("demo-1")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(token.PINFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("PIN file: %v, %v", info, err)
	}
	for i, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256} {
		key, err := token.GenerateKey("key", []byte{1, byte(i)}, a)
		if err != nil {
			t.Fatal(err)
		}
		u, err := pkcs11.ParseURI(key.URI.Text())
		if err != nil {
			t.Fatal(err)
		}
		s, err := pkcs11.Open(context.Background(), u, pkcs11.Options{KeyID: key.Public.KeyID()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(t.Context(), []byte("m")); err != nil {
			t.Error(err)
		}
		s.Close()
	}
	// The same directory taken again has the same tokens, and no second of a label.
	again, err := softhsm.New(env.Dir)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := token.PIN()
	if _, err := again.CreateToken("demo-1"); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Fatalf("a second token of one label: got %v", err)
	}
	if after, _ := token.PIN(); before == "" || after != before {
		t.Fatal("a refused CreateToken changed the PIN file")
	}
}

func TestRefusals(t *testing.T) {
	env := newEnv(t)
	for _, label := range []string{"", "a b", "../x", strings.Repeat("a", 33)} {
		if _, err := env.CreateToken(label); err == nil {
			t.Errorf("label %q is accepted", label)
		}
	}
	token, err := env.CreateToken("t")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.GenerateKey("k", nil, signer.Ed25519); err == nil {
		t.Error("a key without id is made")
	}
	if _, err := token.GenerateKey("k", []byte{1}, "md5"); err == nil {
		t.Error("a key of an unknown algorithm is made")
	}
}

func TestLocateSaysWhatToInstall(t *testing.T) {
	t.Setenv("SOFTHSM2_MODULE", "/nonexistent.so")
	if _, err := softhsm.Locate(); err == nil || !strings.Contains(err.Error(), "/nonexistent.so") {
		t.Fatalf("got %v", err)
	}
}
