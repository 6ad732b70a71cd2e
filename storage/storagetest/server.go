// Package storagetest is the conformance suite of the stores, and private
// PostgreSQL servers for tests. It is never linked into a program.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a PostgreSQL server of this process alone, in a temporary
// directory, on a free port of the loopback interface. It ends with the
// process, in whatever way that ends.
type Server struct {
	bin, dir string
	Port     int
	as       *syscall.Credential // nil: as this process
	keeper   *exec.Cmd
	pipe     io.Writer    // the keeper's standard input
	made     atomic.Int64 // databases
}

// ErrNoPostgres says that the server's programs are not installed.
var ErrNoPostgres = errors.New("PostgreSQL is not installed (make deps installs it)")

var shared = sync.OnceValues(Start)

// Shared is one server for all tests of the process. Where PostgreSQL is not
// installed the test is skipped, or fails where the environment has CI.
func Shared(t testing.TB) *Server {
	t.Helper()
	return need(t)(shared())
}

// New is a server for one test, which may stop it.
func New(t testing.TB) *Server {
	t.Helper()
	s := need(t)(Start())
	t.Cleanup(s.Close)
	return s
}

func need(t testing.TB) func(*Server, error) *Server {
	return func(s *Server, err error) *Server {
		t.Helper()
		if errors.Is(err, ErrNoPostgres) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// Start makes and starts a server.
func Start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.dir, err = os.MkdirTemp("", "kgpg"); err != nil {
		return nil, err
	}
	if err := s.owner(); err != nil {
		return nil, err
	}
	initdb := s.command("initdb", "-D", s.data(), "-U", "kernelgate", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	return s, s.Run()
}

// programs is the directory of the newest version's programs. Debian keeps
// them off the PATH.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { return versionOf(b) - versionOf(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", ErrNoPostgres
	}
	return filepath.Dir(path), nil
}

func versionOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// owner gives the directory to a user who is not root, since PostgreSQL
// refuses to run as root.
func (s *Server) owner() error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(s.dir, int(uid), int(gid))
	}
	return errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.as}
	return cmd
}

// keep runs a server until standard input, a pipe from this process, ends; then
// it removes the directory, unless it was told that the server is to run again.
const keep = `"$@" >>log 2>&1 & read -r again; kill -QUIT $! 2>/dev/null; wait; [ "$again" ] || rm -rf "$PWD"`

// Run starts the server again, and waits until it answers.
func (s *Server) Run() error {
	s.keeper = s.command("postgres")
	s.keeper.Path = "/bin/sh"
	s.keeper.Args = []string{"sh", "-c", keep, "sh", filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(s.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "autovacuum_naptime=5s"}
	var err error
	if s.pipe, err = s.keeper.StdinPipe(); err != nil {
		return err
	}
	if err := s.keeper.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		if ctx.Err() != nil {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server does not start: %w: %s", err, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the server as pg_ctl stop -m immediate does: at once, as a crash
// would, so that it recovers at the next start.
func (s *Server) Kill() error { return s.stop(syscall.SIGQUIT) }

func (s *Server) stop(signal syscall.Signal) error {
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return err
	}
	return s.release()
}

// release has the keeper wait for the server's end.
func (s *Server) release() error {
	_, _ = io.WriteString(s.pipe, "again\n")
	err := s.keeper.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return nil
	}
	return err
}

// Close ends the server and removes all it had.
func (s *Server) Close() {
	_ = s.stop(syscall.SIGQUIT)
	_ = os.RemoveAll(s.dir)
}

// URL is that of a database on the server.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://kernelgate@127.0.0.1:%d/%s?sslmode=disable", s.Port, database)
}

// Database makes an empty database and gives its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	name := fmt.Sprintf("k%d", s.made.Add(1))
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}
