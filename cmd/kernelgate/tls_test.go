package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow/client"
)

// certificate writes a certificate for 127.0.0.1 and its key into dir.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

// With TLS, and with a guard that the operator's own command starts.
func TestTLSAndGuardCommand(t *testing.T) {
	w := newWorld(t, "tls: {cert: cert.pem, key: key.pem}\n")
	pool := certificate(t, w.dir)
	own := filepath.Join(w.dir, "guard.yaml")
	text, err := os.ReadFile(w.config)
	must(t, err)
	must(t, os.WriteFile(own, text, 0o600))
	must(t, os.WriteFile(w.config, []byte("root: "+w.root.String()+"\nlisten: 127.0.0.1:0\ntls: {cert: cert.pem, key: key.pem}\n"+
		"guard: {command: [/usr/bin/env, KEPT=1, '"+os.Args[0]+"', guard, --config, '"+own+"', --until-stdin-closes]}\n"), 0o600))
	w.mustInit(t)
	p := w.start(t, "serve", "--config", w.config)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	c, err := client.New(p.url(t), w.token(t, "auditor", "auditor"), &http.Client{Transport: transport})
	must(t, err)
	eventually(t, "a checkpoint over TLS", func() bool {
		_, err := c.Checkpoint(t.Context())
		return err == nil
	})
	w.verifyLog(t, c)
	// A renewed certificate is used without a restart.
	transport.CloseIdleConnections()
	renewed := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certificate(t, w.dir)}}
	defer renewed.CloseIdleConnections()
	eventually(t, "the renewed certificate", func() bool {
		response, err := (&http.Client{Transport: renewed}).Get(p.url(t) + "/livez")
		return err == nil && response.Body.Close() == nil
	})
	guard := guardPID(t, p)
	p.kill()
	eventually(t, "the guard ends with serve", func() bool { return !alive(guard) })
}
