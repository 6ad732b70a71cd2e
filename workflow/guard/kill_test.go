package guard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The test binary runs itself as a guard that kills itself with SIGKILL at one
// step, when these are set. The steps are in what the test wraps around the
// guard (its signer, its file system, its caller), and not in the guard.
const (
	killDir  = "GUARD_TEST_DIR"
	killStep = "GUARD_TEST_KILL"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		runGuard(dir, os.Getenv(killStep))
		return
	}
	os.Exit(m.Run())
}

// killer ends its process at the step, once armed: the start is not its matter.
type killer struct{ step, arm string }

func (k killer) at(step string) {
	if _, err := os.Stat(k.arm); step != k.step || err != nil {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

type killSigner struct {
	signer.Signer
	killer
}

func (s killSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	s.at("before signing")
	sig, err := s.Signer.Sign(ctx, message)
	s.at("after signing")
	return sig, err
}

type killFiles struct {
	killer
	changes *atomic.Int32 // that were synced
}

type killFile struct {
	file
	killFiles
}

// killSnapshot is the new file: written, synced, and then, once a second change
// is in the old one, caught up with it.
type killSnapshot struct {
	file
	killFiles
	written bool
}

func (f killFiles) Open(name string, flag int) (file, error) {
	snapshot := strings.HasSuffix(name, tempSuffix)
	if snapshot {
		f.at("before the snapshot")
	}
	opened, err := osFiles{}.Open(name, flag)
	if err != nil || snapshot {
		return &killSnapshot{file: opened, killFiles: f}, err
	}
	return &killFile{opened, f}, nil
}

func (f *killSnapshot) Write(p []byte) (int, error) {
	n, err := f.file.Write(p[:len(p)/2])
	if f.written {
		f.at("in the catching up")
	}
	f.at("in the snapshot")
	if err != nil {
		return n, err
	}
	m, err := f.file.Write(p[len(p)/2:])
	return n + m, err
}

func (f *killSnapshot) Sync() error {
	err := f.file.Sync()
	if f.written {
		f.at("after the catching up")
		return err
	}
	f.written = true
	f.at("after the snapshot")
	for end := time.Now().Add(time.Minute); f.changes.Load() < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return err
}

func (f killFiles) Rename(from, to string) error {
	f.at("before the rename")
	err := osFiles{}.Rename(from, to)
	f.at("after the rename")
	return err
}

func (f killFiles) SyncDir(name string) error { return osFiles{}.SyncDir(name) }

func (f *killFile) Write(p []byte) (int, error) {
	f.at("before the write")
	if f.step == "in the write" {
		if _, err := f.file.Write(p[:len(p)/2]); err != nil {
			return 0, err
		}
		f.at("in the write")
		n, err := f.file.Write(p[len(p)/2:])
		return len(p)/2 + n, err
	}
	n, err := f.file.Write(p)
	f.at("after the write")
	return n, err
}

func (f *killFile) Sync() error {
	err := f.file.Sync()
	f.changes.Add(1)
	f.at("after the sync")
	return err
}

type killGuard struct {
	*Guard
	killer
}

func (g killGuard) SignRecord(ctx context.Context, b upgrade.QuorumBundle, p workflow.LogProof) (envelope.Envelope, error) {
	env, err := g.Guard.SignRecord(ctx, b, p)
	g.at("before the reply")
	return env, err
}

// runGuard is the guard's process.
func runGuard(dir, step string) {
	k := killer{step, filepath.Join(dir, "armed")}
	config := Config{
		Root: must(envelope.ParseDigest(string(must(os.ReadFile(filepath.Join(dir, "root")))))), MemoryPath: filepath.Join(dir, "memory"),
		Records: killSigner{readKey(dir, "records"), k}, Audit: readKey(dir, "audit"), Clock: time.Now,
	}
	g := must(open(config, killFiles{k, new(atomic.Int32)}))
	if inBackground(step) {
		g.disk.snapshot = -2 * minGrowth // the next change is worth one
	}
	panic(Serve(context.Background(), killGuard{g, k}, must(Listen(filepath.Join(dir, "s")))))
}

// inBackground: the step is taken while the guard answers others.
func inBackground(step string) bool {
	return strings.Contains(step, "snapshot") || strings.Contains(step, "catching") || strings.Contains(step, "rename")
}

func readKey(dir, name string) signer.Signer {
	block, _ := pem.Decode(must(os.ReadFile(filepath.Join(dir, name))))
	switch key := must(x509.ParsePKCS8PrivateKey(block.Bytes)).(type) {
	case ed25519.PrivateKey:
		return must(filekey.New(key, ""))
	case *ecdsa.PrivateKey:
		return must(filekey.New(key, ""))
	}
	panic("guard: no such key")
}

func writeKey(dir, name string, key any) {
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		panic(err)
	}
}

// startGuard starts the process, and waits for its socket.
func startGuard(t *testing.T, dir, step string) (*exec.Cmd, chan error) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), killDir+"="+dir, killStep+"="+step)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c := NewClient(filepath.Join(dir, "s"))
	defer c.Close()
	for range 200 {
		if _, err := c.Status(t.Context()); err == nil {
			return cmd, ended
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the guard does not start")
	return nil, nil
}

// Killed at any step, a guard that comes back gives one signature for the
// bundle, the same for ever, and none for another.
func TestKilledAtEveryStep(t *testing.T) {
	for _, step := range []string{"before signing", "after signing", "before the write", "in the write", "after the write", "after the sync", "before the reply",
		"before the snapshot", "in the snapshot", "after the snapshot", "in the catching up", "after the catching up", "before the rename", "after the rename"} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			records, audit := newPrivate()
			writeKey(dir, "records", records)
			writeKey(dir, "audit", audit)
			keys := map[string]signer.Signer{"records": readKey(dir, "records"), "audit": readKey(dir, "audit")}
			w := makeWorld(t, envelope.TimeOf(time.Now()).Add(-60), dir, keys)
			w.ok(Init(w.config, w.entry))
			w.open()
			w.begin()
			w.now = envelope.TimeOf(time.Now())
			b := w.quorum(1, upgrade.None)
			other := w.manifest(1, upgrade.None)
			other.Rationale = "another"
			o := w.agreed(other)
			w.append(auditlog.UpgradeApplying, o.Quorum.UpgradeID, auditlog.Data{auditlog.DataBundleDigest: o.Digest().String()})
			proof := w.show(auditlog.UpgradeApplying, b)
			otherProof := w.prove(proof.Entry.Index - 1)
			w.ok(w.guard.Close())
			w.ok(os.WriteFile(filepath.Join(dir, "root"), []byte(w.config.Root.String()), 0o600))

			_, ended := startGuard(t, dir, step)
			w.ok(os.WriteFile(filepath.Join(dir, "armed"), nil, 0o600))
			c := NewClient(filepath.Join(dir, "s"))
			defer c.Close()
			var first []byte
			env, err := c.SignRecord(t.Context(), b, proof)
			if err == nil && !inBackground(step) {
				t.Fatalf("it was not killed, and signed %s", env.PayloadDigest())
			}
			if err == nil {
				first = env.Bytes()
			}
			delegations := int64(1)
			if _, err := c.DelegateEventKey(t.Context(), newKey(signer.Ed25519).Public().DER(), "another", w.now, w.now.Add(60)); err == nil {
				delegations++
			}
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatal(err)
			}
			w.ok(os.Remove(filepath.Join(dir, "armed")))

			for range 2 {
				cmd, ended := startGuard(t, dir, "")
				for range 2 {
					env := must(c.SignRecord(t.Context(), b, proof))
					if first == nil {
						first = env.Bytes()
					}
					if !bytes.Equal(first, env.Bytes()) {
						t.Fatal("two signatures for one bundle")
					}
					w.refused(failure.AlreadySigned, second(c.SignRecord(t.Context(), o, otherProof)))
				}
				if s := must(c.Status(t.Context())); s.Counts.Records != 1 || s.Counts.Delegations < delegations {
					t.Fatalf("%+v", s)
				}
				w.ok(cmd.Process.Kill())
				<-ended
			}
		})
	}
}

func newPrivate() (records, audit any) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(key, err)
}

// A write that fails, without a crash: no signature leaves, and the guard
// stops until it is opened again.
func TestFailingWrites(t *testing.T) {
	for n := range 2 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			b := w.quorum(1, upgrade.None)
			proof := w.show(auditlog.UpgradeApplying, b)
			w.guard.disk.file = &failingFile{w.guard.disk.file, n == 1}
			for range 2 {
				if err := second(w.guard.SignRecord(t.Context(), b, proof)); failure.ClassOf(err) != "" || err == nil {
					t.Fatal(err)
				}
			}
			w.reopen()
			must(w.guard.SignRecord(t.Context(), b, proof))
		})
	}
}

type failingFile struct {
	file
	written bool
}

func (f *failingFile) Write(p []byte) (int, error) {
	if f.written {
		return f.file.Write(p)
	}
	n, _ := f.file.Write(p[:len(p)/3])
	return n, syscall.ENOSPC
}

func (f *failingFile) Sync() error { return syscall.EIO }
