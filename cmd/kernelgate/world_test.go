package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// asCommand makes the test binary the command itself, so that tests have real
// processes of the code under test.
const asCommand = "RUN_AS_KERNELGATE"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// world is a Kernel on real tokens: the Kernel's keys in two SoftHSM2 tokens,
// everybody else's in memory.
type world struct {
	dir, config, registry string
	root                  envelope.Digest
	people                map[string]signer.Signer
	hsm                   *softhsm.Env
	tokens                map[string]*softhsm.Token
	keys                  map[string]string // URIs of records and audit
}

func newWorld(t *testing.T, more string) *world {
	t.Helper()
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	dir, err := os.MkdirTemp("", "kg") // short, for the socket's path
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{dir: dir, config: filepath.Join(dir, "kernelgate.yaml"), registry: filepath.Join(dir, "registry.json"),
		tokens: map[string]*softhsm.Token{}, keys: map[string]string{}}
	w.hsm, err = softhsm.New(filepath.Join(dir, "hsm"))
	must(t, err)
	w.makeRegistry(t)
	w.writeConfig(t, more)
	return w
}

func (w *world) makeRegistry(t *testing.T) {
	t.Helper()
	now := envelope.TimeOf(time.Now())
	fixture := registrytest.New(now)
	doc, err := keyregistry.ParseDocument(fixture.Entries[0].Document)
	must(t, err)
	key := func(name string, algorithm signer.Algorithm) []keyregistry.Key {
		w.tokens[name], err = w.hsm.CreateToken(name)
		must(t, err)
		k, err := w.tokens[name].GenerateKey(name, []byte{1}, algorithm)
		must(t, err)
		w.keys[name] = k.URI.Text()
		return []keyregistry.Key{keyregistry.NewKey(k.Public, algorithm, keyregistry.OriginPKCS11, now.Add(-3600), now.Add(365*86400))}
	}
	doc.Kernel = keyregistry.KernelKeys{Records: key("records", signer.ECDSAP256SHA256), Audit: key("audit", signer.Ed25519)}
	entry := registrytest.Entry(doc, fixture.Approvers()...)
	w.root, w.people = envelope.DigestOf(entry.Document), fixture.Signers
	data, err := envelope.Canonical(entry)
	must(t, err)
	must(t, os.WriteFile(w.registry, data, 0o600))
}

func (w *world) writeConfig(t *testing.T, more string) {
	t.Helper()
	text := fmt.Sprintf("root: %s\nlisten: 127.0.0.1:0\nguard:\n  recordsKey: %q\n  auditKey: %q\ntargets:\n  web:\n    release:\n      dir: web\n%s",
		w.root, w.keys["records"], w.keys["audit"], more)
	must(t, os.WriteFile(w.config, []byte(text), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// process is one real process of the command.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	read  chan struct{} // closed when all who had its standard error are gone

	mu  sync.Mutex
	log bytes.Buffer
}

// start starts the command. It is killed at the test's end.
func (w *world) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{}), read: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asCommand+"=1", w.hsm.Environ())
	// A pipe of our own: exec's is closed at the process's end, read or not.
	stderr, theirs, err := os.Pipe()
	must(t, err)
	p.cmd.Stderr = theirs
	must(t, p.cmd.Start())
	_ = theirs.Close()
	go func() {
		defer close(p.read)
		defer stderr.Close()
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			fmt.Fprintln(&p.log, lines.Text())
			p.mu.Unlock()
		}
	}()
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		<-p.read // the guard holds the pipe, and ends with serve
		if t.Failed() {
			t.Logf("log of %s:\n%s", strings.Join(args, " "), p.text())
		}
	})
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// wait is the exit code, or -1 for a process that a signal ended.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		select {
		case <-p.read: // all that it said is known
		case <-time.After(time.Second): // its guard lives on
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		t.Fatal("the process does not end")
		return 0
	}
}

// entries are the log's lines of a message.
func (p *process) entries(message string) (found []map[string]any) {
	for line := range strings.Lines(p.text()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message {
			found = append(found, entry)
		}
	}
	return found
}

// eventually waits for what comes by itself.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

// url waits until serve says where it serves.
func (p *process) url(t *testing.T) (url string) {
	t.Helper()
	eventually(t, "serve says its URL", func() bool {
		for _, entry := range p.entries("the gateway serves") {
			url, _ = entry["url"].(string)
		}
		return url != ""
	})
	return url
}

// call runs the command in this process.
func (w *world) call(args ...string) (code int, stdout, stderr string) {
	return call(context.Background(), args...)
}

func call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// init runs init as a process, as it starts a guard by its own executable.
func (w *world) init(t *testing.T) *process {
	t.Helper()
	return w.start(t, "init", "--config", w.config, "--root", w.root.String(), "--registry", w.registry)
}

func (w *world) mustInit(t *testing.T) {
	t.Helper()
	if p := w.init(t); p.wait(t) != 0 {
		t.Fatalf("init: %s", p.text())
	}
}

func (w *world) token(t *testing.T, name, role string) string {
	t.Helper()
	code, out, stderr := w.call("token", "create", "--config", w.config, "--name", name, "--role", role)
	if code != 0 {
		t.Fatal(stderr)
	}
	return strings.TrimSpace(out)
}

// serve starts a gateway and a client of it.
func (w *world) serve(t *testing.T, token string) (*process, *client.Client) {
	t.Helper()
	p := w.start(t, "serve", "--config", w.config)
	c, err := client.New(p.url(t), token, nil)
	must(t, err)
	return p, c
}

// signal sends and does not wait.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }
