package pkcs11_test

import (
	"bytes"
	"context"
	"testing"
	"unsafe"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/test/faults"
)

// TestPINIsWiped: the module is given the very bytes that the caller read, not
// a copy of them, and they are wiped after each use.
func TestPINIsWiped(t *testing.T) {
	for name, always := range map[string]uint32{"login": faults.Never, "each signature": faults.Always} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, signer.ECDSAP256SHA256)
			r.Always.Set(always)
			right, err := r.token.PIN()
			if err != nil {
				t.Fatal(err)
			}
			var handed [][]byte
			r.key.URI.PINSource = pkcs11.PINSource{}
			mustSign(t, openKey(t, r.key.URI, pkcs11.Options{PIN: func(context.Context, string) ([]byte, error) {
				handed = append(handed, []byte(right))
				return handed[len(handed)-1], nil
			}}))
			if want := 1 + int(always); len(handed) != want {
				t.Fatalf("%d PINs were asked for, want %d", len(handed), want)
			}
			last := &handed[len(handed)-1][0]
			if at := uintptr(unsafe.Pointer(last)); r.PINAt() != at {
				t.Errorf("the module was given a copy of the PIN, at %x, not %x", r.PINAt(), at)
			}
			for i, pin := range handed {
				if !bytes.Equal(pin, make([]byte, len(right))) {
					t.Errorf("PIN %d is not wiped", i)
				}
			}
		})
	}
}

// TestKeypad: a token with a keypad of its own is sent no PIN, and needs none.
func TestKeypad(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	s := openKey(t, r.key.URI, pkcs11.Options{}) // the fault module learns the PIN
	r.TokenFlags.Set(p11.CKF_PROTECTED_AUTHENTICATION_PATH)
	u := r.key.URI
	u.PINSource = pkcs11.PINSource{}
	pkcs11.ForgetLogin(t, u.ModulePath)
	mustSign(t, openKey(t, u, pkcs11.Options{}))
	if at := r.PINAt(); at != 0 {
		t.Errorf("a PIN was sent, at %x", at)
	}
	mustSign(t, s)
}
