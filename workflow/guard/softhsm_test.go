package guard

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/softhsm"
)

// The Kernel's keys in a real token: every kind of signature, a restart and a
// rebuild.
func TestOnSoftHSM2(t *testing.T) {
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	env := must(softhsm.New(filepath.Join(t.TempDir(), "hsm")))
	token := must(env.CreateToken("kernel"))
	keys := map[string]signer.Signer{}
	for i, algorithm := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.Ed25519} {
		key := must(token.GenerateKey("key", []byte{byte(i + 1)}, algorithm))
		s := must(pkcs11.Open(t.Context(), key.URI, pkcs11.Options{}))
		t.Cleanup(func() { _ = s.Close() })
		keys[[]string{"records", "audit"}[i]] = s
	}
	w := makeWorld(t, at("2026-06-01T12:00:00Z"), t.TempDir(), keys)
	w.ok(Init(w.config, w.entry))
	w.open()
	w.begin()
	w.ok(w.guard.Probe(t.Context()))
	w.history()
	want := dump(w.guard.mem)
	w.reopen()
	if dump(w.guard.mem) != want {
		t.Fatal("another memory after a restart")
	}
	w.forget()
	w.ok(w.guard.Rebuild(t.Context(), w))
	if dump(w.guard.mem) != want {
		t.Fatal("another memory after a rebuild")
	}
}
