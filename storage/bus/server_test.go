package bus_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsServer builds the real server once for all tests.
var natsServer = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(os.TempDir(), fmt.Sprintf("kernelgate-nats-server-%d", os.Getpid()))
	build := exec.Command("go", "build", "-C", filepath.Join("..", "..", "test", "interop"), "-o", binary, "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("nats-server does not build: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binary, err := natsServer(); err == nil {
		_ = os.Remove(binary)
	}
	os.Exit(code)
}

// server is a nats-server with JetStream, as a process.
type server struct {
	t      *testing.T
	binary string
	dir    string // its files
	port   int
	more   string // of its configuration
	cmd    *exec.Cmd
	logs   bytes.Buffer
}

func newServer(t *testing.T, more string) *server {
	t.Helper()
	binary, err := natsServer()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &server{t: t, binary: binary, dir: t.TempDir(), port: free.Addr().(*net.TCPAddr).Port, more: more}
	check(t, free.Close())
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Log(s.logs.String())
		}
	})
	return s
}

func (s *server) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

func (s *server) start() {
	s.t.Helper()
	config := filepath.Join(s.dir, "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream { store_dir: %q }\n%s\n", s.port, filepath.Join(s.dir, "js"), s.more)
	check(s.t, os.WriteFile(config, []byte(text), 0o600))
	s.cmd = exec.Command(s.binary, "-c", config)
	s.cmd.Stdout, s.cmd.Stderr = &s.logs, &s.logs
	check(s.t, s.cmd.Start())
	eventually(s.t, "the server listens", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// freeze and thaw stop and continue the process, its connections open.
func (s *server) freeze() { check(s.t, s.cmd.Process.Signal(syscall.SIGSTOP)) }
func (s *server) thaw()   { check(s.t, s.cmd.Process.Signal(syscall.SIGCONT)) }

// consumer connects as one who reads, with JetStream ready.
func (s *server) consumer(options ...nats.Option) jetstream.JetStream {
	s.t.Helper()
	conn, err := nats.Connect(s.url(), options...)
	check(s.t, err)
	s.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	check(s.t, err)
	eventually(s.t, "JetStream answers", func() bool { _, err := js.AccountInfo(s.t.Context()); return err == nil })
	return js
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not reached: %s", what)
		}
	}
}
