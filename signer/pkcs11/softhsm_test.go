package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/signer/signertest"
	"github.com/kernelgate/kernelgate/softhsm"
)

// newEnv is a directory of tokens for one test, or, without SoftHSM2, a skip
// that is a failure in CI.
func newEnv(t testing.TB) *softhsm.Env {
	t.Helper()
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "") // put back at the end of the test
	env, err := softhsm.New(filepath.Join(t.TempDir(), "hsm"))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func newToken(t testing.TB, env *softhsm.Env, label string) *softhsm.Token {
	t.Helper()
	token, err := env.CreateToken(label)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newKey(t testing.TB, token *softhsm.Token, label string, id byte, a signer.Algorithm) *softhsm.Key {
	t.Helper()
	key, err := token.GenerateKey(label, []byte{id}, a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openKey(t testing.TB, u pkcs11.URI, opts pkcs11.Options) signer.Signer {
	t.Helper()
	s, err := pkcs11.Open(within(t, 10*time.Second), u, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustSign(t testing.TB, s signer.Signer) {
	t.Helper()
	if _, err := s.Sign(within(t, 10*time.Second), []byte("message")); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	token := newToken(t, newEnv(t), "conformance")
	keys := map[signer.Algorithm]*softhsm.Key{}
	for i, a := range signertest.Algorithms {
		keys[a] = newKey(t, token, "key-"+string(a), byte(i+1), a)
	}
	signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
		u, err := pkcs11.ParseURI(keys[a].URI.Text())
		if err != nil {
			t.Fatal(err)
		}
		s, err := pkcs11.Open(within(t, 10*time.Second), u, pkcs11.Options{KeyID: keys[a].Public.KeyID()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, signertest.Algorithms...)
}

func TestRSAKeyDefaultsToPSS(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "rsa"), "k", 1, signer.RSAPKCS1SHA256)
	key.URI.Algorithm = ""
	if s := openKey(t, key.URI, pkcs11.Options{}); s.Algorithm() != signer.RSAPSSSHA256 {
		t.Fatalf("algorithm %s", s.Algorithm())
	}
}

func TestOpenRefuses(t *testing.T) {
	env := newEnv(t)
	token := newToken(t, env, "one")
	key := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	other := newKey(t, token, "k", 2, signer.ECDSAP256SHA256)
	change := func(f func(*pkcs11.URI)) pkcs11.URI {
		u := key.URI
		f(&u)
		return u
	}
	cases := []struct {
		name string
		uri  pkcs11.URI
		opts pkcs11.Options
		want error
		says []string
	}{
		{"no such module", change(func(u *pkcs11.URI) { u.ModulePath = "/nonexistent.so" }), pkcs11.Options{}, signer.ErrUnavailable, []string{"/nonexistent.so"}},
		{"not a module", change(func(u *pkcs11.URI) { u.ModulePath = env.Conf }), pkcs11.Options{}, signer.ErrUnavailable, []string{"cannot be loaded"}},
		{"no such token", change(func(u *pkcs11.URI) { u.Token = "two" }), pkcs11.Options{}, signer.ErrUnavailable, []string{"no token matches", `"one"`}},
		{"no such key", change(func(u *pkcs11.URI) { u.Object = "x" }), pkcs11.Options{}, signer.ErrKey, []string{`"k" (id=%01)`}},
		{"two keys with one label", change(func(u *pkcs11.URI) { u.ID = nil }), pkcs11.Options{}, signer.ErrKey, []string{`"k" (id=%01)`, `"k" (id=%02)`}},
		{"another key than expected", key.URI, pkcs11.Options{KeyID: other.Public.KeyID()}, signer.ErrKey, []string{key.Public.KeyID(), other.Public.KeyID()}},
		{"wrong algorithm", change(func(u *pkcs11.URI) { u.Algorithm = signer.Ed25519 }), pkcs11.Options{}, signer.ErrKey, []string{"ed25519"}},
		{"no PIN source", change(func(u *pkcs11.URI) { u.PINSource = pkcs11.PINSource{} }), pkcs11.Options{}, signer.ErrPIN, []string{"pin-source="}},
		{"no PIN file", change(func(u *pkcs11.URI) { u.PINSource = pkcs11.FilePIN("/nonexistent") }), pkcs11.Options{}, signer.ErrPIN, []string{"/nonexistent"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, err := pkcs11.Open(within(t, 10*time.Second), c.uri, c.opts)
			if !errors.Is(err, c.want) || s != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
		})
	}
	mustSign(t, openKey(t, key.URI, pkcs11.Options{}))
}

func TestTwoTokensWithOneLabelAreListed(t *testing.T) {
	env := newEnv(t)
	first := newToken(t, env, "twin")
	key := newKey(t, first, "k", 1, signer.ECDSAP256SHA256)
	// Two of a label cannot be made at once: make the other elsewhere and move it.
	away, err := softhsm.New(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	second := newToken(t, away, "twin")
	copyTokens(t, away, env)
	if _, err = softhsm.New(env.Dir); err != nil { // the module looks here again
		t.Fatal(err)
	}
	u := key.URI
	u.Serial = ""
	_, err = pkcs11.Open(within(t, 10*time.Second), u, pkcs11.Options{})
	if !errors.Is(err, signer.ErrKey) || !strings.Contains(err.Error(), first.Serial) || !strings.Contains(err.Error(), second.Serial) {
		t.Fatalf("got %v, want ErrKey that lists %s and %s", err, first.Serial, second.Serial)
	}
	mustSign(t, openKey(t, key.URI, pkcs11.Options{}))
}

func copyTokens(t *testing.T, from, to *softhsm.Env) {
	t.Helper()
	if err := os.CopyFS(to.TokenDir(), os.DirFS(from.TokenDir())); err != nil {
		t.Fatal(err)
	}
}

func TestPINFromEverySource(t *testing.T) {
	token := newToken(t, newEnv(t), "pins")
	key := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	pin, err := token.PIN()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KG_TEST_PIN", pin)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(token.PINFile))
	key.URI.PINSource = pkcs11.PINSource{}
	for _, source := range []string{"env:KG_TEST_PIN", "credential:" + filepath.Base(token.PINFile), "file:" + token.PINFile, "file://" + token.PINFile} {
		u, err := pkcs11.ParseURI(key.URI.Text() + "&pin-source=" + source)
		if err != nil {
			t.Fatal(err)
		}
		s, err := pkcs11.Open(within(t, 10*time.Second), u, pkcs11.Options{})
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		mustSign(t, s)
		s.Close()
	}
	var handed []byte
	ask := func(_ context.Context, label string) ([]byte, error) {
		if label != "pins" {
			return nil, fmt.Errorf("asked for the PIN of %q", label)
		}
		handed = []byte(pin)
		return handed, nil
	}
	mustSign(t, openKey(t, key.URI, pkcs11.Options{PIN: ask}))
	if string(handed) != strings.Repeat("\x00", len(pin)) {
		t.Fatal("the PIN was not wiped after use")
	}
}

func TestPINFileMustBePrivate(t *testing.T) {
	token := newToken(t, newEnv(t), "open")
	key := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	if err := os.Chmod(token.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := pkcs11.Open(within(t, 10*time.Second), key.URI, pkcs11.Options{}); !errors.Is(err, signer.ErrPIN) {
		t.Fatalf("got %v, want ErrPIN", err)
	}
}

func TestWrongPINIsSentOnce(t *testing.T) {
	token := newToken(t, newEnv(t), "latch")
	key := newKey(t, token, "k", 1, signer.ECDSAP256SHA256)
	right, err := token.PIN()
	if err != nil {
		t.Fatal(err)
	}
	asked, pin := 0, right
	opts := pkcs11.Options{PIN: func(context.Context, string) ([]byte, error) {
		asked++
		return []byte(pin), nil
	}}
	key.URI.PINSource = pkcs11.PINSource{}
	s := openKey(t, key.URI, opts)
	mustSign(t, s)

	// The PIN is changed under a running signer, and the token comes back.
	pin = "000000"
	pkcs11.ForgetLogin(t, key.URI.ModulePath)
	asked = 0
	for range 5 {
		if _, err := s.Sign(within(t, 10*time.Second), []byte("m")); !errors.Is(err, signer.ErrPIN) {
			t.Fatalf("got %v, want ErrPIN", err)
		}
	}
	if asked != 1 {
		t.Fatalf("the PIN was sent %d times, want once", asked)
	}
	if strings.Contains(fmt.Sprint(err), pin) {
		t.Fatal("the error holds the PIN")
	}
	// A person opens the key anew with the right one: the old signer goes on too.
	pin = right
	mustSign(t, openKey(t, key.URI, opts))
	mustSign(t, s)
}

// TestModuleThatAnybodyCanChange: code that is given PINs is not taken from a
// file that others write.
func TestModuleThatAnybodyCanChange(t *testing.T) {
	env := newEnv(t)
	code, err := os.ReadFile(env.Module)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(path, code, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o757); err != nil {
		t.Fatal(err)
	}
	u := pkcs11.URI{ModulePath: path}
	if _, err := pkcs11.Open(within(t, 20*time.Second), u, pkcs11.Options{}); !errors.Is(err, signer.ErrKey) || !contains(err, "changed by anybody") {
		t.Errorf("got %v", err)
	}
}
