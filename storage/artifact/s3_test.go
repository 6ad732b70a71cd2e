package artifact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/storage/artifact/artifacttest"
	"github.com/kernelgate/kernelgate/workflow"
)

// versitygw builds the S3 server once for all tests.
var versitygw = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(os.TempDir(), fmt.Sprintf("kernelgate-versitygw-%d", os.Getpid()))
	build := exec.Command("go", "build", "-C", filepath.Join("..", "..", "test", "interop"), "-o", binary, "github.com/versity/versitygw/cmd/versitygw")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("versitygw does not build: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binary, err := versitygw(); err == nil {
		_ = os.Remove(binary)
	}
	os.Exit(code)
}

const (
	accessKey = "kernelgate-test"
	secretKey = "only-for-tests"
	bucket    = "artifacts"
)

// s3Server is versitygw on a directory, as a process.
type s3Server struct {
	t      *testing.T
	binary string
	dir    string
	port   int
	cmd    *exec.Cmd
	logs   bytes.Buffer
}

func newS3(t *testing.T) *s3Server {
	t.Helper()
	binary, err := versitygw()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &s3Server{t: t, binary: binary, dir: filepath.Join(t.TempDir(), "data"), port: free.Addr().(*net.TCPAddr).Port}
	must(t, free.Close())
	must(t, os.MkdirAll(filepath.Join(s.dir, bucket), 0o700))
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Log(s.logs.String())
		}
	})
	s.start()
	return s
}

func (s *s3Server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.binary, "--port", fmt.Sprintf("127.0.0.1:%d", s.port), "posix", "--sidecar", s.sidecar(), s.dir)
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	s.cmd.Stdout, s.cmd.Stderr = &s.logs, &s.logs
	must(s.t, os.MkdirAll(s.sidecar(), 0o700))
	must(s.t, s.cmd.Start())
	for range 2000 {
		if answer, err := http.Get(s.endpoint()); err == nil {
			must(s.t, answer.Body.Close())
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatal("the server does not start")
}

// sidecar is where it keeps attributes: not every file system of a test has
// extended ones.
func (s *s3Server) sidecar() string { return filepath.Join(filepath.Dir(s.dir), "attributes") }

// kill is kill -9.
func (s *s3Server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *s3Server) endpoint() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

func storeURL(endpoint string) string {
	q := url.Values{"region": {"us-east-1"}, "endpoint": {endpoint}, "use_path_style": {"true"}}
	return "s3://" + bucket + "/kernel-test?" + q.Encode()
}

func (s *s3Server) open(t *testing.T, endpoint string) *artifact.Blob {
	t.Helper()
	b, err := artifact.OpenBlob(t.Context(), storeURL(endpoint), filepath.Join(t.TempDir(), "spool"), artifacttest.Limit, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

// The server as the suite's place.

func (s *s3Server) Open(t *testing.T) workflow.Artifacts { return s.open(t, s.endpoint()) }

func (s *s3Server) object(digest envelope.Digest) string {
	return filepath.Join(s.dir, bucket, "kernel-test", "objects", digest.Hex()[:2], digest.Hex()[2:])
}

func (s *s3Server) Damage(t *testing.T, digest envelope.Digest, content []byte) {
	must(t, os.WriteFile(s.object(digest), content, 0o600))
}

// Leftovers are the files of the bucket, uploads under way included.
func (s *s3Server) Leftovers(t *testing.T) []string { return files(t, filepath.Join(s.dir, bucket)) }

func TestBlobOnS3(t *testing.T) {
	artifacttest.Run(t, func(t *testing.T) artifacttest.Backend { return newS3(t) })
}

// cutter is a proxy that cuts a connection after so many bytes of it.
type cutter struct {
	net.Listener
	to    string
	mu    sync.Mutex
	after int64 // bytes from the client that still pass; negative: all
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{Listener: l, to: to, after: -1}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

func (c *cutter) cutAfter(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = bytes
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil || !c.pass(int64(n)) {
			return
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (c *cutter) pass(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after < 0 {
		return true
	}
	c.after = max(0, c.after-n)
	return c.after > 0
}

func TestConnectionIsCutInTheMiddleOfAnUpload(t *testing.T) {
	s := newS3(t)
	proxy := newCutter(t, fmt.Sprintf("127.0.0.1:%d", s.port))
	b := s.open(t, "http://"+proxy.Addr().String())
	content := bytes.Repeat([]byte("kernelgate"), artifacttest.Limit/10)
	digest := envelope.DigestOf(content)
	for _, after := range []int64{1, 100_000, 9 << 20, 19 << 20} {
		proxy.cutAfter(after)
		if _, _, err := b.Put(t.Context(), bytes.NewReader(content)); err == nil {
			t.Fatalf("cut after %d bytes: no error", after)
		}
		proxy.cutAfter(-1)
		if r, _, err := b.Open(t.Context(), digest); !errors.Is(err, workflow.ErrNotFound) {
			t.Fatalf("cut after %d bytes: Open = %v, %v", after, r, err)
		}
	}
	readBack(t, b, content, true)
}

// readBack puts, where asked, and reads.
func readBack(t *testing.T, b *artifact.Blob, content []byte, put bool) {
	t.Helper()
	if put {
		_, _, err := b.Put(t.Context(), bytes.NewReader(content))
		must(t, err)
	}
	r, _, err := b.Open(t.Context(), envelope.DigestOf(content))
	must(t, err)
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestServerIsRestarted(t *testing.T) {
	s := newS3(t)
	b := s.open(t, s.endpoint())
	first := []byte("before")
	readBack(t, b, first, true)
	s.kill()
	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, _, err := b.Put(short, strings.NewReader("meanwhile")); err == nil {
		t.Fatal("a store without a server took an artifact")
	}
	if _, _, err := b.Open(short, envelope.DigestOf(first)); err == nil || errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("away is not absent: %v", err)
	}
	s.start()
	readBack(t, b, first, false)
	readBack(t, b, []byte("meanwhile"), true)
}

func TestServerIsKilledInTheMiddleOfAnUpload(t *testing.T) {
	s := newS3(t)
	proxy := newCutter(t, fmt.Sprintf("127.0.0.1:%d", s.port))
	proxy.cutAfter(12 << 20)
	b := s.open(t, "http://"+proxy.Addr().String())
	content := bytes.Repeat([]byte("0123456789"), artifacttest.Limit/10)
	done := make(chan error, 1)
	go func() {
		_, _, err := b.Put(t.Context(), bytes.NewReader(content))
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	s.kill()
	if err := <-done; err == nil {
		t.Fatal("no error")
	}
	s.start()
	proxy.cutAfter(-1)
	if _, _, err := b.Open(t.Context(), envelope.DigestOf(content)); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("Open = %v", err)
	}
	readBack(t, b, content, true)
}

// What is allocated for one artifact is a few parts of an upload, however large
// it is.
func TestBlobInBoundedMemory(t *testing.T) {
	const size = 320 << 20 // many times the parts under way
	s := newS3(t)
	b, err := artifact.OpenBlob(t.Context(), storeURL(s.endpoint()), filepath.Join(t.TempDir(), "spool"), size, slog.New(slog.DiscardHandler))
	must(t, err)
	defer b.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what is let go does not count for long
	runtime.GC()
	most := peak(func() {
		digest, _, err := b.Put(t.Context(), io.LimitReader(artifacttest.Endless{}, size))
		must(t, err)
		r, _, err := b.Open(t.Context(), digest)
		must(t, err)
		_, err = io.Copy(io.Discard, r)
		must(t, errors.Join(err, r.Close()))
	})
	if most > size/2 {
		t.Errorf("%d bytes in use at once for an artifact of %d", most, size)
	}
}

// peak is the most bytes of the heap that were in use at once while f ran.
func peak(f func()) (most uint64) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	<-ended
	return most
}

// An object that stands at the key already is not written over, but for damage.
func TestConditionalWrite(t *testing.T) {
	s := newS3(t)
	b := s.open(t, s.endpoint())
	content := []byte("once")
	readBack(t, b, content, true)
	before, err := os.Stat(s.object(envelope.DigestOf(content)))
	must(t, err)
	time.Sleep(20 * time.Millisecond)
	readBack(t, b, content, true)
	after, err := os.Stat(s.object(envelope.DigestOf(content)))
	must(t, err)
	if !after.ModTime().Equal(before.ModTime()) {
		t.Error("the object was written again")
	}
}

func TestOrphanUploadsAreRemoved(t *testing.T) {
	s := newS3(t)
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion("us-east-1"), config.WithBaseEndpoint(s.endpoint()))
	must(t, err)
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	begin := func(key string) {
		name := bucket
		_, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: &key})
		must(t, err)
	}
	begin("kernel-test/objects/ab/orphan")
	begin("others/thing")
	removed, err := artifact.RemoveOrphans(t.Context(), client, bucket, "kernel-test/objects/", time.Now().Add(-time.Hour))
	if err != nil || removed != 0 {
		t.Fatalf("of young ones %d, %v", removed, err)
	}
	removed, err = artifact.RemoveOrphans(t.Context(), client, bucket, "kernel-test/objects/", time.Now().Add(time.Hour))
	if err != nil || removed != 1 {
		t.Fatalf("of old ones %d, %v", removed, err)
	}
	removed, err = artifact.RemoveOrphans(t.Context(), client, bucket, "", time.Now().Add(time.Hour))
	if err != nil || removed != 1 {
		t.Fatalf("another's upload was removed: %d, %v", removed, err)
	}
}

func TestSpoolIsEmptyAfterwards(t *testing.T) {
	s := newS3(t)
	spool := filepath.Join(t.TempDir(), "spool")
	b, err := artifact.OpenBlob(t.Context(), storeURL(s.endpoint()), spool, artifacttest.Limit, slog.New(slog.DiscardHandler))
	must(t, err)
	defer b.Close()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { _, _, err := b.Put(t.Context(), pr); done <- err }()
	if _, err := pw.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	// In the middle, too: a crash would leave nothing.
	entries, err := os.ReadDir(spool)
	if err != nil || len(entries) != 0 {
		t.Errorf("the spool has %v, %v", entries, err)
	}
	must(t, pw.Close())
	must(t, <-done)
}

func TestOpenBlobRefuses(t *testing.T) {
	for _, address := range []string{
		"ftp://bucket", "s3://", "s3://key:secret@bucket", "s3://bucket?endpoint=http://s3.example", "s3://bucket?disable_https=true",
		"s3://bucket?region=us-east-1&nonsense=1", "gs://bucket", "mem://",
	} {
		b, err := artifact.OpenBlob(t.Context(), address, t.TempDir(), 1, slog.New(slog.DiscardHandler))
		if err == nil {
			b.Close()
			t.Errorf("%s was opened", address)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("told is %v", err)
		}
	}
	if _, err := artifact.OpenBlob(t.Context(), "s3://bucket?region=us-east-1", t.TempDir(), 0, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a limit of 0 was accepted")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
