package pkcs11_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/signer/signertest"
	"github.com/kernelgate/kernelgate/test/faults"
)

// TestGenerateAndList: a key of each kind is made, found and signs.
func TestGenerateAndList(t *testing.T) {
	env := newEnv(t)
	token := newToken(t, env, "made")
	u := pkcs11.URI{Token: token.Label, ModulePath: env.Module, PINSource: pkcs11.FilePIN(token.PINFile)}
	var want []string
	for i, a := range signertest.Algorithms {
		k := u
		k.Object, k.ID, k.Algorithm = string(a), []byte{byte(i + 1)}, a
		if err := pkcs11.GenerateKey(within(t, 20*time.Second), k, pkcs11.Options{}); err != nil {
			t.Fatal(err)
		}
		s := openKey(t, k, pkcs11.Options{})
		mustSign(t, s)
		if s.Algorithm() != a {
			t.Errorf("%s: signs by %s", a, s.Algorithm())
		}
		if err := pkcs11.GenerateKey(within(t, 20*time.Second), k, pkcs11.Options{}); !errors.Is(err, signer.ErrKey) || !contains(err, "already") {
			t.Errorf("an id that is taken: got %v", err)
		}
		want = append(want, string(a))
	}
	listed := func(u pkcs11.URI) (labels []string) {
		keys, err := pkcs11.ListKeys(within(t, 20*time.Second), u, pkcs11.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			labels = append(labels, k.Label)
		}
		slices.Sort(labels)
		return labels
	}
	slices.Sort(want)
	if got := listed(u); !slices.Equal(got, want) {
		t.Errorf("listed: %v", got)
	}
	u.ID = []byte{1}
	if got := listed(u); !slices.Equal(got, []string{string(signertest.Algorithms[0])}) {
		t.Errorf("listed by id: %v", got)
	}
	for name, bad := range map[string]pkcs11.URI{"no id": {Object: "k", Algorithm: signer.Ed25519}, "no label": {ID: []byte{9}, Algorithm: signer.Ed25519}, "no algorithm": {Object: "k", ID: []byte{9}}} {
		bad.Token, bad.ModulePath, bad.PINSource = u.Token, u.ModulePath, u.PINSource
		if err := pkcs11.GenerateKey(within(t, 20*time.Second), bad, pkcs11.Options{}); !errors.Is(err, signer.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
}

// TestProvisioningSparesThePIN: who makes or lists keys meets the same refusals
// as who signs.
func TestProvisioningSparesThePIN(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	fresh := r.key.URI
	fresh.Object, fresh.ID = "new", []byte{7}
	ways := map[string]func() error{
		"list": func() error {
			_, err := pkcs11.ListKeys(within(t, 20*time.Second), r.key.URI, pkcs11.Options{})
			return err
		},
		"generate": func() error { return pkcs11.GenerateKey(within(t, 20*time.Second), fresh, pkcs11.Options{}) },
	}
	r.PINTries.Set(3)
	before := r.calls("C_Login")
	for name, way := range ways {
		for left, says := range map[uint32]string{1: "one try left", 0: "is locked"} {
			r.PINLeft.Set(left)
			if err := way(); !errors.Is(err, signer.ErrPIN) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s, %d left: got %v, want ErrPIN that says %q", name, left, err, says)
			}
		}
	}
	if n := r.calls("C_Login") - before; n != 0 {
		t.Errorf("%d PINs were sent to a token with one try left, or none", n)
	}
	writePIN(r, "000000\n")
	r.PINTries.Set(10)
	r.PINLeft.Set(10)
	for name, way := range ways {
		if err := way(); !errors.Is(err, signer.ErrPIN) {
			t.Errorf("%s, wrong PIN: got %v", name, err)
		}
	}
	if left := r.PINLeft.Get(); left != 8 {
		t.Errorf("%d tries left of 10 after two wrong PINs", left)
	}
}

// TestProvisioningEndsInTime: a module that hangs keeps nobody waiting.
func TestProvisioningEndsInTime(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	r.fail("C_OpenSession", faults.Rule{Times: 1, Action: faults.Hang})
	_, err := pkcs11.ListKeys(within(t, 300*time.Millisecond), r.key.URI, pkcs11.Options{})
	if !errors.Is(err, pkcs11.ErrStuck) || !errors.Is(err, signer.ErrUnavailable) {
		t.Errorf("got %v, want ErrStuck", err)
	}
	r.fail("C_OpenSession", faults.Rule{})
	moduleAtRest(t, r.Path)
}
