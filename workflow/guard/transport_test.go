package guard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// serve answers on the listener until the test ends.
func serve(t testing.TB, g workflow.Guard, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, g, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) client() *Client {
	path := filepath.Join(w.t.TempDir(), "s")
	serve(w.t, w.guard, must(Listen(path)))
	c := NewClient(path)
	w.t.Cleanup(c.Close)
	return c
}

func TestSocket(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.config.Log = slog.New(slog.NewTextHandler(&log, nil))
	w.reopen()
	c := w.client()
	b := w.quorum(1, upgrade.None)
	proof := w.show(auditlog.UpgradeApplying, b)
	record := must(c.SignRecord(t.Context(), b, proof))
	other := w.manifest(1, upgrade.None)
	other.Rationale = "another"
	w.refused(failure.AlreadySigned, second(c.SignRecord(t.Context(), w.agreed(other), proof)))
	w.ok(c.Outcome(t.Context(), w.show(auditlog.UpgradeApplied, b)))
	w.ok(c.Probe(t.Context()))
	w.ok(c.AcceptRegistry(t.Context(), w.entry))
	w.refused(failure.FieldInvalid, second(c.DelegateEventKey(t.Context(), nil, "", w.now, w.now)))
	w.refused(failure.EmergencyNotAllowed, second(c.SignRatification(t.Context(), w.ratification(b, people[:3]...), proof)))
	w.refused(failure.BindingMismatch, second(c.SignRollback(t.Context(), w.kernelRollback(8, 7, rev(1)), nil)))
	size := w.guard.mem.last.Size
	must(c.SignCheckpoint(t.Context(), size, w.root(size), nil))
	// The guard tells of each by itself, and of each in its own words.
	for line, n := range map[string]int{
		`level=INFO msg=signed call=/v1/record digest=` + record.PayloadDigest().String(): 1, "level=INFO": 1,
		"level=WARN msg=refused call=/v1/record class=already_signed": 1, "level=WARN": 4,
	} {
		if strings.Count(log.String(), line) != n {
			t.Errorf("not %d of %q in\n%s", n, line, &log)
		}
	}
	if s := must(c.Status(t.Context())); !s.Ready || s.KernelID != "k1" || s.Counts.Records != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestGuardAway(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := c.Status(t.Context()); !errors.Is(err, workflow.ErrGuardUnavailable) {
		t.Fatal(err)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	request := string(must(json.Marshal(bundleRequest{Bundle: w.quorum(1, upgrade.None)})))
	for name, q := range map[string]struct {
		path, body string
		status     int
	}{
		"no JSON":             {pathRecord, "{", 400},
		"an unknown member":   {pathStatus, `{"sign":"this"}`, 400},
		"a name twice":        {pathSuspend, `{"envelope":{},"envelope":{}}`, 400},
		"trailing bytes":      {pathStatus, `{} {}`, 400},
		"no bundle":           {pathRecord, `{}`, 400},
		"another layout":      {pathRecord, strings.Replace(request, `{"approvals"`, `{ "approvals"`, 1), 400},
		"a bundle name twice": {pathRatify, strings.Replace(request, `"quorum":{"approvers"`, `"quorum":{"approvers":[],"approvers"`, 1), 400},
		"a bundle's null":     {pathRecord, strings.Replace(request, `"manifest"`, `"emergencyTrigger":null,"manifest"`, 1), 400},
		"as it should be":     {pathRecord, request, 422}, // of a guard that wants a proof
		"no signature":        {pathSuspend, `{"envelope":{"payload":"","payloadType":"x","signatures":[]}}`, 422},
		"a root too short":    {pathCheckpoint, `{"size":1,"root":"AAAA","consistency":[]}`, 422},
		"an unknown path":     {"/v1/sign", `{}`, 404},
		"too long":            {pathRecord, `{"x":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		"long for its path":   {pathStatus, `{"x":"` + strings.Repeat("x", maxPlain) + `"}`, 413},
		"too many objects":    {pathRecord, `{"bundle":{"approvals":[{}` + strings.Repeat(`,{}`, maxValues+1) + `]}}`, 400},
		"too many hashes":     {pathCheckpoint, `{"size":1,"root":"","consistency":[""` + strings.Repeat(`,""`, maxValues+1) + `]}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := must(c.http.Post(c.base+q.path, "application/json", strings.NewReader(q.body)))
			body := must(io.ReadAll(r.Body))
			_ = r.Body.Close()
			if r.StatusCode != q.status {
				t.Fatalf("status %d, %s", r.StatusCode, body)
			}
			if q.status != 404 && !bytes.Contains(body, []byte(`"class":"`)) || bytes.Contains(body, []byte(`"class":""`)) {
				t.Fatalf("no class: %s", body)
			}
		})
	}
	if r := must(c.http.Get(c.base + pathStatus)); r.StatusCode != 405 {
		t.Fatal(r.Status)
	}
}

// counted is a listener that knows how many connections were open at one time.
type counted struct {
	net.Listener
	mu                 sync.Mutex
	accepted, now, max int
}

type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error { c.leave(); return c.Conn.Close() }

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted, c.now = c.accepted+1, c.now+1
	c.max = max(c.max, c.now)
	return &countedConn{conn, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	})}, nil
}

func (c *counted) wait(t *testing.T, accepted int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		n := c.accepted
		c.mu.Unlock()
		if n >= accepted {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections were accepted, not %d", n, accepted)
		}
	}
}

// Connections that ask nothing take no more than their places.
func TestConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := &counted{Listener: must(Listen(path))}
	serve(t, stuck{}, l)
	const more = 8
	var conns []net.Conn
	for range maxConns + more {
		conn := must(net.Dial("unix", path))
		conns = append(conns, conn)
		defer func() { _ = conn.Close() }()
	}
	l.wait(t, maxConns)
	for _, conn := range conns[:more] {
		_ = conn.Close()
	}
	l.wait(t, maxConns+more)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.max != maxConns {
		t.Errorf("%d connections were open at one time", l.max)
	}
}

// stuck is a guard whose calls wait until they are let go.
type stuck struct {
	workflow.Guard
	entered, release chan struct{}
}

func (s stuck) Probe(context.Context) error {
	s.entered <- struct{}{}
	<-s.release
	return nil
}

func (s stuck) Status(context.Context) (workflow.GuardStatus, error) {
	return workflow.GuardStatus{Ready: true}, nil
}

func TestSaturation(t *testing.T) {
	s := stuck{entered: make(chan struct{}, maxWaiting), release: make(chan struct{})}
	path := filepath.Join(t.TempDir(), "s")
	serve(t, s, must(Listen(path)))
	c := NewClient(path)
	defer c.Close()
	ended := make(chan error, maxWaiting)
	for range maxWaiting {
		go func() { ended <- c.Probe(context.Background()) }()
	}
	for range maxWaiting {
		<-s.entered
	}
	r := must(c.http.Post(c.base+pathProbe, "", strings.NewReader("{}")))
	if _ = r.Body.Close(); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Fatal(r.Status)
	}
	if err := c.Probe(t.Context()); !errors.Is(err, workflow.ErrGuardUnavailable) {
		t.Fatal(err)
	}
	if s, err := c.Status(t.Context()); err != nil || !s.Ready {
		t.Fatalf("a busy guard is taken for dead: %+v %v", s, err)
	}
	close(s.release)
	for range maxWaiting {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRebuildOverTheSocket(t *testing.T) {
	w := newWorld(t)
	w.history()
	want := dump(w.guard.mem)
	w.forget()
	c := w.client()
	broken := *w
	broken.records = nil
	if err := c.Rebuild(t.Context(), &broken); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatal(err)
	}
	broken = *w
	broken.chain = nil
	err := c.Rebuild(t.Context(), &broken)
	for end := time.Now().Add(20 * time.Second); errors.Is(err, workflow.ErrGuardUnavailable) && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // the guard has yet to notice that the source before broke off
		err = c.Rebuild(t.Context(), &broken)
	}
	w.refused(failure.RegistryRootMismatch, err)
	w.ok(c.Rebuild(t.Context(), w))
	if got := dump(w.guard.mem); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	w.refused(failure.RoleNotAllowed, c.Rebuild(t.Context(), w)) // once
}

// authority makes certificates for a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir(), key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	a.cert = must(x509.ParseCertificate(der))
	a.write("ca", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		panic(err)
	}
	return path
}

// endpoint is one side of a connection under this authority.
func (a *authority) endpoint(name, address string, usage x509.ExtKeyUsage) Endpoint {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	return Endpoint{Address: address, CA: filepath.Join(a.dir, "ca"), Cert: a.write(name, "CERTIFICATE", der), Key: a.write(name+".key", "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))}
}

func TestMutualTLS(t *testing.T) {
	w := newWorld(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	l := must(ours.endpoint("server", "tls://127.0.0.1:0", x509.ExtKeyUsageServerAuth).Listen())
	serve(t, w.guard, l)
	address := "tls://" + l.Addr().String()
	c := must(ours.endpoint("client", address, x509.ExtKeyUsageClientAuth).Client())
	defer c.Close()
	if s := must(c.Status(t.Context())); !s.Ready {
		t.Fatalf("%+v", s)
	}
	stranger := theirs.endpoint("client", address, x509.ExtKeyUsageClientAuth)
	stranger.CA = filepath.Join(ours.dir, "ca") // it trusts the guard, but is nobody to it
	impostor := ours.endpoint("other", address, x509.ExtKeyUsageClientAuth)
	impostor.CA = filepath.Join(theirs.dir, "ca")
	for _, e := range []Endpoint{stranger, impostor} {
		c := must(e.Client())
		if _, err := c.Status(t.Context()); !errors.Is(err, workflow.ErrGuardUnavailable) {
			t.Fatal(err)
		}
		c.Close()
	}
	bare := http.Client{Transport: &http.Transport{}}
	if r, err := bare.Post("http://"+l.Addr().String()+pathStatus, "", strings.NewReader("{}")); err == nil && r.StatusCode == 200 {
		t.Fatal("answered without TLS")
	}
}

// Files that are replaced hold for the next connection on both sides, also the
// CA: who was known by the old one alone is a stranger then. A certificate
// without its key is not taken.
func TestReplacedTLSFiles(t *testing.T) {
	w := newWorld(t)
	ours, next := newAuthority(t), newAuthority(t)
	said := make(chan string, 100)
	server := ours.endpoint("server", "tls://127.0.0.1:0", x509.ExtKeyUsageServerAuth)
	server.Log = func(message string, err error) { said <- fmt.Sprint(message, err) }
	l := must(server.Listen())
	serve(t, w.guard, l)
	address := "tls://" + l.Addr().String()
	c := must(ours.endpoint("client", address, x509.ExtKeyUsageClientAuth).Client())
	defer c.Close()
	stays := ours.endpoint("stays", address, x509.ExtKeyUsageClientAuth)
	newServer, newClient := next.endpoint("server", address, x509.ExtKeyUsageServerAuth), next.endpoint("client", address, x509.ExtKeyUsageClientAuth)
	must(c.Status(t.Context()))
	move := func(from, to string) { w.ok(os.WriteFile(filepath.Join(ours.dir, to), must(os.ReadFile(from)), 0o600)) }
	move(newServer.Cert, "server") // its key is missing
	for end, found := time.Now().Add(time.Minute), false; !found; {
		c.Close()
		must(c.Status(t.Context()))
		select {
		case text := <-said:
			found = strings.Contains(text, "could not be read again") && strings.Contains(text, "private key")
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(end) {
				t.Fatal("nobody is told that the files do not go together")
			}
		}
	}
	stays.CA = filepath.Join(t.TempDir(), "ca")
	w.ok(os.WriteFile(stays.CA, must(os.ReadFile(newServer.CA)), 0o600)) // it would know the guard
	stranger := must(stays.Client())
	defer stranger.Close()
	move(newServer.Key, "server.key")
	move(newClient.Cert, "client")
	move(newClient.Key, "client.key")
	move(newClient.CA, "ca")
	fresh := must(newClient.Client())
	defer fresh.Close()
	until := func(what string, client *Client, done func(error) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			client.Close() // for a new connection
			_, err := client.Status(t.Context())
			if done(err) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	until("the guard has not taken its new files", fresh, func(err error) bool { return err == nil })
	until("the client has not taken its new files", c, func(err error) bool { return err == nil })
	until("who left the CA is still let in", stranger, func(err error) bool { return err != nil && strings.Contains(err.Error(), "tls:") })
}

func TestEndpointForms(t *testing.T) {
	for _, address := range []string{"", "guard.sock", "unix:guard.sock", "tcp://h:1", "tls://h", "tls://h:1/x", "tls://u@h:1", "http://h:1"} {
		if _, err := (Endpoint{Address: address}).Client(); err == nil {
			t.Errorf("%q is accepted", address)
		}
		if _, err := (Endpoint{Address: address}).Listen(); err == nil {
			t.Errorf("%q is listened on", address)
		}
	}
	if _, err := (Endpoint{Address: "tls://h:1", Cert: "no", Key: "no", CA: "no"}).Client(); err == nil {
		t.Error("without certificates")
	}
	path := filepath.Join(t.TempDir(), "s")
	_ = must(Endpoint{Address: "unix:" + path}.Listen()).Close()
}

// What the socket adds to a call: calls of one guard, with one memory, in this
// process and through its socket, in turns. Keys are in files, so that what a
// signature takes besides is its fsync.
func BenchmarkSocket(b *testing.B) {
	w := newWorld(b)
	again := w.quorum(1, upgrade.None)
	must(w.sign(again))
	n := 1
	guards := []workflow.Guard{w.guard, w.client()}
	for _, c := range []struct {
		name string
		call func(workflow.Guard) time.Duration
	}{
		{"status", func(g workflow.Guard) time.Duration {
			return timed(func() { must(g.Status(b.Context())) })
		}},
		{"checkpoint", func(g workflow.Guard) time.Duration {
			w.append(auditlog.UpgradeCreated, uuid(1), nil)
			size, last := int64(len(w.leaves)), w.guard.mem.last.Size
			root, proof := w.root(size), w.consistency(last, size)
			return timed(func() { w.note = must(g.SignCheckpoint(b.Context(), size, root, proof)) })
		}},
		{"record", func(g workflow.Guard) time.Duration {
			n++
			bundle := w.quorum(n, rev(n-1))
			proof := w.show(auditlog.UpgradeApplying, bundle)
			return timed(func() { must(g.SignRecord(b.Context(), bundle, proof)) })
		}},
		{"record-again", func(g workflow.Guard) time.Duration {
			return timed(func() { must(g.SignRecord(b.Context(), again, workflow.LogProof{})) })
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				for i, g := range guards {
					took[i] = append(took[i], c.call(g))
				}
			}
			direct, socket := median(took[0]), median(took[1])
			b.ReportMetric(direct, "direct-p50-us")
			b.ReportMetric(socket, "socket-p50-us")
			b.ReportMetric(socket-direct, "added-p50-us")
			b.ReportMetric(0, "ns/op") // of both, and of what they are asked about: no figure
		})
	}
}

func timed(call func()) time.Duration {
	begun := time.Now()
	call()
	return time.Since(begun)
}

// median is in microseconds.
func median(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}
