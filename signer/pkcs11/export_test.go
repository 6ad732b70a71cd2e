package pkcs11

import (
	"context"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// RawSigner opens a key without the check of signatures, for benchmarks.
func RawSigner(ctx context.Context, u URI, opts Options) (signer.Signer, error) {
	return openKey(ctx, u, opts)
}

// ForgetLogin restarts the module at path, as
// recovery does, so that the next signature has to log in.
func ForgetLogin(t testing.TB, path string) {
	t.Helper()
	m, err := loadModule(path)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.lastReset = m.lastReset.Add(-resetInterval)
	m.mu.Unlock()
	if err := m.reset(m.epoch.Load()); err != nil {
		t.Fatal(err)
	}
}

// HoldSession takes a raw signer's session until the function is called.
func HoldSession(t testing.TB, s signer.Signer) (giveBack func()) {
	t.Helper()
	pool := s.(*key).token.pool
	held, err := pool.take(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return func() { pool.give(held) }
}

// SaysOfToken are the texts in which a token's own words stand.
func SaysOfToken(info p11.TokenInfo) []string {
	return []string{describeToken(info, 0), tokenFinding(info).Says}
}

// Finalized reports whether nobody has the module at path in use any more.
func Finalized(t testing.TB, path string) bool {
	t.Helper()
	m, err := loadModule(path)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs == 0 && !m.up
}

// DiagnoseModule is the doctor's first look.
func DiagnoseModule(u URI) {
	if m, _ := diagnoseModule(u); m != nil {
		m.release()
	}
}
