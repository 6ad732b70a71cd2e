package pkcs11_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/test/faults"
)

// rig is a key in SoftHSM2 behind a module that fails on order.
type rig struct {
	t testing.TB
	*faults.Module
	token *softhsm.Token
	key   *softhsm.Key // its URI leads through the fault module
}

func newRig(t testing.TB, algorithm signer.Algorithm) *rig {
	t.Helper()
	env := newEnv(t)
	if _, err := exec.LookPath("gcc"); err != nil && os.Getenv("CI") == "" {
		t.Skipf("the fault module is compiled: %v", err)
	}
	r := &rig{t: t, token: newToken(t, env, "faulty")}
	r.key = newKey(t, r.token, "k", 1, algorithm)
	var err error
	if r.Module, err = faults.Build(t.TempDir(), env.Module); err != nil {
		t.Fatal(err)
	}
	r.key.URI.ModulePath = r.Path
	return r
}

func (r *rig) fail(function string, rule faults.Rule) {
	r.t.Helper()
	if err := r.Fail(function, rule); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) calls(function string) uint32 {
	r.t.Helper()
	n, err := r.Calls(function)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// known reports whether err tells callers what helps.
func known(err error) bool {
	for _, class := range []error{signer.ErrUnavailable, signer.ErrBusy, signer.ErrPIN, signer.ErrKey, signer.ErrBadSignature} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// codes are all return codes of the standard, and one of a vendor's.
func codes() []uint32 {
	list := []uint32{p11.CKR_VENDOR_DEFINED + 7}
	for code := uint32(1); code <= p11.CKR_FUNCTION_REJECTED; code++ {
		if !strings.HasSuffix(p11.Error(code).Error(), ": ") { // the binding has a name for it
			list = append(list, code)
		}
	}
	return list
}

// TestEveryReturnCode: whatever code a call gives once, the caller gets a
// signature or an error that says what helps, no search stays open, and the
// signer signs again.
func TestEveryReturnCode(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	s := openKey(t, r.key.URI, pkcs11.Options{})
	cured, refused := 0, 0
	try := func(function string, code uint32) {
		r.fail(function, faults.Rule{Times: 1, Code: code})
		defer r.fail(function, faults.Rule{})
		_, err := s.Sign(within(t, 20*time.Second), []byte("m"))
		if err == nil {
			cured++
		} else if refused++; !known(err) {
			t.Errorf("%s gives %v: the error has no class: %v", function, p11.Error(code), err)
		}
		r.fail(function, faults.Rule{})
		backAfter(t, s)
		if n := r.OpenSearches.Get(); n != 0 {
			t.Errorf("%s gives %v: %d searches were never ended", function, p11.Error(code), n)
		}
	}
	for _, code := range codes() {
		for _, function := range []string{"C_SignInit", "C_Sign"} {
			try(function, code)
		}
	}
	for _, code := range []uint32{p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_REMOVED,
		p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_HOST_MEMORY, p11.CKR_OPERATION_ACTIVE, p11.CKR_USER_NOT_LOGGED_IN} {
		for _, function := range []string{"C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal"} {
			time.Sleep(50 * time.Millisecond) // restarts of a module are apart
			pkcs11.ForgetLogin(t, r.key.URI.ModulePath)
			try(function, code)
		}
	}
	t.Logf("%d failures were cured before the caller saw them, %d were reported", cured, refused)
	if cured < 100 {
		t.Errorf("only %d failures were cured", cured)
	}
}

// TestPINCodesAtLogin: after each the token is asked no more by itself.
func TestPINCodesAtLogin(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	for _, code := range []uint32{p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED, p11.CKR_USER_PIN_NOT_INITIALIZED} {
		s, err := pkcs11.Open(within(t, 20*time.Second), r.key.URI, pkcs11.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, s)
		r.fail("C_Login", faults.Rule{Times: faults.Forever, Code: code})
		pkcs11.ForgetLogin(t, r.key.URI.ModulePath)
		before := r.calls("C_Login")
		for range 20 {
			if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, signer.ErrPIN) {
				t.Fatalf("%v: got %v, want ErrPIN", p11.Error(code), err)
			}
		}
		if n := r.calls("C_Login") - before; n != 1 {
			t.Errorf("%v: the PIN was sent %d times, want once", p11.Error(code), n)
		}
		r.fail("C_Login", faults.Rule{})
		s.Close()
	}
}

// TestPINNearItsLock: a token that counts tries, and a PIN file that is wrong.
func TestPINNearItsLock(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	right, err := os.ReadFile(r.token.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(pin []byte) {
		if err := os.WriteFile(r.token.PINFile, pin, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func() error {
		s, err := pkcs11.Open(within(t, 20*time.Second), r.key.URI, pkcs11.Options{})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	r.PINTries.Set(3)
	r.PINLeft.Set(3)
	write([]byte("000000\n"))
	for range 2 { // a person who opens the key anew may try, twice here
		if err := open(); !errors.Is(err, signer.ErrPIN) {
			t.Fatalf("got %v, want ErrPIN", err)
		}
	}
	if left := r.PINLeft.Get(); left != 1 {
		t.Fatalf("%d tries left, want 1", left)
	}
	before := r.calls("C_Login")
	write(right)
	for _, c := range []struct {
		left uint32
		says string
	}{{1, "one try left"}, {0, "is locked"}} {
		r.PINLeft.Set(c.left)
		for range 5 {
			if err := open(); !errors.Is(err, signer.ErrPIN) || !contains(err, c.says) {
				t.Fatalf("%d left: got %v, want ErrPIN that says %q", c.left, err, c.says)
			}
		}
	}
	if n := r.calls("C_Login") - before; n != 0 {
		t.Errorf("%d PINs were sent to a token with one try left, or none", n)
	}
	r.PINLeft.Set(2) // a count that is low alone does not stop the right PIN
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if left := r.PINLeft.Get(); left != 3 {
		t.Errorf("%d tries left after the right PIN, want 3", left)
	}
}

// TestSignaturesThatAreNone: they never leave, and the key goes on after it.
func TestSignaturesThatAreNone(t *testing.T) {
	for _, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.Ed25519, signer.RSAPSSSHA256} {
		r := newRig(t, a)
		s := openKey(t, r.key.URI, pkcs11.Options{})
		for _, fault := range []uint32{faults.Corrupt, faults.Short, faults.Long, faults.Empty} {
			r.Signature.Set(fault)
			if sig, err := s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, signer.ErrBadSignature) || sig != nil {
				t.Errorf("%s, fault %d: got %v, want ErrBadSignature", a, fault, err)
			}
		}
		r.Signature.Set(faults.Sound)
		mustSign(t, s)
		s.Close()
	}
}

// TestEncodings: the curve by OID or by name, the point wrapped or raw.
func TestEncodings(t *testing.T) {
	for _, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519} {
		r := newRig(t, a)
		for _, params := range []uint32{faults.AsStored, faults.Printable} {
			for _, point := range []uint32{faults.Wrapped, faults.Raw} {
				r.Params.Set(params)
				r.Point.Set(point)
				s, err := pkcs11.Open(within(t, 20*time.Second), r.key.URI, pkcs11.Options{KeyID: r.key.Public.KeyID()})
				if err != nil {
					t.Errorf("%s, params %d, point %d: %v", a, params, point, err)
					continue
				}
				mustSign(t, s)
				s.Close()
			}
		}
	}
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

// TestLoginThatFailsWithoutAWord: a module that says only "failed" when the
// PIN is wrong, while the token counts. The count going down is word enough.
func TestLoginThatFailsWithoutAWord(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	s := openKey(t, r.key.URI, pkcs11.Options{})
	mustSign(t, s)
	r.PINTries.Set(10)
	r.PINLeft.Set(10)
	right, err := os.ReadFile(r.token.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	writePIN(r, "000000\n")
	r.fail("C_Login", faults.Rule{Times: faults.Forever, Action: faults.ReplaceCode, Code: p11.CKR_FUNCTION_FAILED})
	pkcs11.ForgetLogin(t, r.key.URI.ModulePath)
	for range 5 {
		if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); err == nil {
			t.Fatal("signed with a wrong PIN")
		}
	}
	if left := r.PINLeft.Get(); left != 9 {
		t.Errorf("%d tries left of 10, want 9: one wrong PIN was sent", left)
	}
	r.PINLeft.Set(10) // who opens the key, and could do so again, is told that a PIN was sent
	if _, err := pkcs11.Open(within(t, 20*time.Second), r.key.URI, pkcs11.Options{}); !errors.Is(err, pkcs11.ErrLogin) || !errors.Is(err, signer.ErrUnavailable) {
		t.Errorf("got %v, want ErrLogin", err)
	}
	writePIN(r, string(right))
	r.fail("C_Login", faults.Rule{})
	mustSign(t, openKey(t, r.key.URI, pkcs11.Options{})) // a person opens the key anew
	mustSign(t, s)
}
