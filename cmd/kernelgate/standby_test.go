package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// pair writes a certificate and its key, by a CA, into dir as NAME.pem and NAME.key.
func pair(t *testing.T, dir, name string, ca *authority, usage x509.ExtKeyUsage) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", private)
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority writes its certificate into dir as ca.pem.
func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "guard CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", der)
	return &authority{cert, key}
}

// remoteGuard starts a guard of its own configuration over mutual TLS, and
// returns its address.
func (w *world) remoteGuard(t *testing.T, name, more string, flags ...string) (p *process, address string) {
	t.Helper()
	file := filepath.Join(w.dir, name+".yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "root: %s\nguard:\n  address: tls://127.0.0.1:0\n  tls: {cert: guard.pem, key: guard.key, ca: ca.pem}\n  memory: %s/guard.json\n  recordsKey: %q\n  auditKey: %q\n%s",
		w.root, name, w.keys["records"], w.keys["audit"], more), 0o600))
	must(t, os.MkdirAll(filepath.Join(w.dir, name), 0o700))
	p = w.start(t, append([]string{"guard", "--config", file}, flags...)...)
	eventually(t, "the guard serves", func() bool {
		for _, entry := range p.entries("the guard serves") {
			text, _ := entry["address"].(string)
			address = strings.Replace(text, "tcp:", "tls://", 1)
		}
		return address != ""
	})
	return p, address
}

func (w *world) useGuard(t *testing.T, address string) {
	t.Helper()
	must(t, os.WriteFile(w.config, fmt.Appendf(nil, "root: %s\nlisten: 127.0.0.1:0\nguard:\n  address: %s\n  tls: {cert: gateway.pem, key: gateway.key, ca: ca.pem}\ntargets: {web: {release: {dir: web}}}\n",
		w.root, address), 0o600))
}

// A standby without a memory takes over from a guard that is gone, over mutual TLS.
func TestStandby(t *testing.T) {
	w := newWorld(t, "")
	ca := newAuthority(t, w.dir)
	pair(t, w.dir, "guard", ca, x509.ExtKeyUsageServerAuth)
	pair(t, w.dir, "gateway", ca, x509.ExtKeyUsageClientAuth)
	old, address := w.remoteGuard(t, "first", "", "--init", w.registry)
	w.useGuard(t, address)
	w.mustInit(t)
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	first := w.propose(t, c, "one", upgrade.None)
	w.waitState(t, c, first.UpgradeID, "completed")
	file := w.bundle(t, c, first.UpgradeID)
	checkpoint, err := c.Checkpoint(t.Context())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.dir, "kept.txt"), []byte(checkpoint), 0o600))
	old.kill() // fenced

	standby, address := w.remoteGuard(t, "standby", "  kept: [kept.txt]\n", "--rebuild")
	w.useGuard(t, address)
	if code, out, stderr := w.call("guard", "rebuild", "--config", w.config); code != 0 || !strings.Contains(out, "1 records") {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	standby.signal(syscall.SIGTERM)
	standby.wait(t)
	_, address = w.remoteGuard(t, "standby", "  kept: [kept.txt]\n")
	p.signal(syscall.SIGTERM)
	p.wait(t)
	w.useGuard(t, address)
	p, c = w.serve(t, w.token(t, "tech-lead-2", "operator"))
	eventually(t, "ready with the standby", isReady(p.url(t)))
	second := w.propose(t, c, "two", upgrade.RevisionOf(first.PatchHash))
	w.waitState(t, c, second.UpgradeID, "completed")
	config, err := loadConfig(w.config)
	must(t, err)
	own, err := config.Guard.endpoint().Client()
	must(t, err)
	defer own.Close()
	sameRecord(t, own, file)

	// The old one comes back, unfenced, with its old memory: it stops at the
	// first checkpoint of the new one's that it is shown, and stays so.
	back, address := w.remoteGuard(t, "first", "")
	returned := config.Guard.endpoint()
	returned.Address = address
	comesBack, err := returned.Client()
	must(t, err)
	defer comesBack.Close()
	newest, err := c.Checkpoint(t.Context())
	must(t, err)
	if err := comesBack.Outcome(t.Context(), workflow.LogProof{Checkpoint: newest}); !errors.Is(err, workflow.ErrGuardUnavailable) {
		t.Errorf("the old guard, shown the new one's checkpoint: %v", err)
	}
	back.kill()
	_, returned.Address = w.remoteGuard(t, "first", "")
	onceMore, err := returned.Client()
	must(t, err)
	defer onceMore.Close()
	if status, err := onceMore.Status(t.Context()); err != nil || status.Ready || !strings.Contains(status.Reason, "old copy") {
		t.Errorf("the old guard, started again: %+v %v", status, err)
	}

	stranger := config.Guard.endpoint()
	pair(t, filepath.Join(w.dir, "standby"), "x", newAuthority(t, filepath.Join(w.dir, "standby")), x509.ExtKeyUsageClientAuth)
	stranger.Cert, stranger.Key = filepath.Join(w.dir, "standby", "x.pem"), filepath.Join(w.dir, "standby", "x.key")
	foreign, err := stranger.Client()
	must(t, err)
	defer foreign.Close()
	if _, err := foreign.Status(t.Context()); err == nil {
		t.Error("the guard answers a stranger")
	}
}
