package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/test/faults"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

func TestWrongPIN(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	pin := w.tokens["records"].PINFile
	right, err := os.ReadFile(pin)
	must(t, err)
	must(t, os.WriteFile(pin, []byte("000000\n"), 0o600))
	p := w.start(t, "guard", "--config", w.config)
	if code := p.wait(t); code != guard.ExitPIN {
		t.Fatalf("the guard ends with %d: %s", code, p.text())
	}
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "serve says so", func() bool { return strings.Contains(p.text(), "refused the guard's PIN") })
	if status, body := ready(p.url(t)); status != 503 || !strings.Contains(body, `"guard":"failed"`) || !strings.Contains(body, `"database":"ok"`) {
		t.Errorf("readyz: %d %s", status, body)
	}
	time.Sleep(time.Second) // several back-offs
	if pids := guardPIDs(t, p); len(pids) != 0 || strings.Count(p.text(), "PIN refused") > 2 {
		t.Errorf("the guard was started again: %v\n%s", pids, p.text())
	}
	if chain, err := c.RegistryChain(t.Context()); err != nil || len(chain.Entries) != 1 {
		t.Errorf("reading does not go on: %v", err)
	}
	_, env := w.manifest(t, w.root)
	if _, err := c.Submit(t.Context(), env); err == nil || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("a post without a guard: %v", err)
	}
	for _, secret := range []string{"000000", strings.TrimSpace(string(right))} {
		if strings.Contains(p.text(), secret) {
			t.Error("the log shows a PIN")
		}
	}
	p.kill()
	must(t, os.WriteFile(pin, right, 0o600))
	p, _ = w.serve(t, "")
	eventually(t, "ready with the right PIN", isReady(p.url(t)))
}

func TestWrongKey(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	w.keys["records"], w.keys["audit"] = w.keys["audit"], w.keys["records"]
	w.writeConfig(t, "")
	p := w.start(t, "guard", "--config", w.config)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "not the registry's") {
		t.Fatalf("%d %s", code, p.text())
	}
}

// A key of another token that the registry does not list is refused as well.
func TestForeignKey(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token, err := w.hsm.CreateToken("foreign")
	must(t, err)
	key, err := token.GenerateKey("foreign", []byte{1}, signer.ECDSAP256SHA256)
	must(t, err)
	w.keys["records"] = key.URI.Text()
	w.writeConfig(t, "")
	p := w.start(t, "guard", "--config", w.config)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "not the registry's") {
		t.Fatalf("%d %s", code, p.text())
	}
}

func TestTwoOfEach(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	p, _ := w.serve(t, "")
	eventually(t, "ready", isReady(p.url(t)))
	second := w.start(t, "serve", "--config", w.config)
	if code := second.wait(t); code != exitFailure || !strings.Contains(second.text(), "another gateway uses the database") {
		t.Errorf("a second serve: %d %s", code, second.text())
	}
	second = w.start(t, "guard", "--config", w.config)
	if code := second.wait(t); code != exitFailure || !strings.Contains(second.text(), "another guard uses the memory") {
		t.Errorf("a second guard: %d %s", code, second.text())
	}
	if status, body := ready(p.url(t)); status != 200 {
		t.Errorf("the first is not ready any more: %d %s", status, body)
	}
}

// A guard that others run: serve starts none, and goes on when it is back.
func TestGuardAddress(t *testing.T) {
	w := newWorld(t, "")
	own := filepath.Join(w.dir, "guard.yaml")
	text, err := os.ReadFile(w.config)
	must(t, err)
	must(t, os.WriteFile(own, text, 0o600))
	must(t, os.MkdirAll(filepath.Join(w.dir, "data"), 0o700))
	socket := filepath.Join(w.dir, "data", "guard.sock")
	must(t, os.WriteFile(w.config, []byte("root: "+w.root.String()+"\nlisten: 127.0.0.1:0\nguard: {address: 'unix:"+socket+"'}\ntargets: {web: {release: {dir: web}}}\n"), 0o600))
	g := w.start(t, "guard", "--config", own, "--init", w.registry)
	eventually(t, "the guard serves", func() bool { return len(g.entries("the guard serves")) > 0 })
	w.mustInit(t)
	p, _ := w.serve(t, "")
	eventually(t, "ready", isReady(p.url(t)))
	if pids := guardPIDs(t, p); len(pids) != 0 {
		t.Errorf("serve has started a guard: %v", pids)
	}
	g.signal(syscall.SIGTERM)
	if code := g.wait(t); code != 0 {
		t.Errorf("the guard ends with %d", code)
	}
	eventually(t, "not ready", func() bool { status, _ := ready(p.url(t)); return status == 503 })
	g = w.start(t, "guard", "--config", own)
	eventually(t, "ready again", isReady(p.url(t)))
}

// A module that hangs takes the guard down, which is started again.
func TestStuckModule(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("the module that hangs: %v", err)
	}
	w := newWorld(t, "")
	dir := filepath.Join(w.dir, "faults")
	must(t, os.Mkdir(dir, 0o700))
	module, err := faults.Build(dir, w.hsm.Module)
	must(t, err)
	defer module.Close()
	for name, uri := range w.keys {
		w.keys[name] = strings.ReplaceAll(uri, w.hsm.Module, module.Path)
	}
	w.writeConfig(t, "")
	t.Setenv("KERNELGATE_GUARD_CALLTIMEOUT", "1s")
	w.mustInit(t)
	p, _ := w.serve(t, "")
	eventually(t, "ready", isReady(p.url(t)))
	must(t, module.Fail("C_Sign", faults.Rule{Times: faults.Forever, Action: faults.Hang}))
	eventually(t, "the guard ends by its watchdog", func() bool {
		_, _ = ready(p.url(t)) // asks for a test signature
		return strings.Contains(p.text(), "exit status 75")
	})
	eventually(t, "not ready, once a good reading is too old", func() bool {
		status, _ := ready(p.url(t))
		return status == 503
	})
	must(t, module.Fail("C_Sign", faults.Rule{}))
	eventually(t, "ready again", isReady(p.url(t)))
}
