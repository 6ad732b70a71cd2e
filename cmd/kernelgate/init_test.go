package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInitTwice(t *testing.T) {
	w := newWorld(t, "")
	p := w.start(t, "serve", "--config", w.config)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "kernelgate init --config") {
		t.Fatalf("serve before init: %d %s", code, p.text())
	}
	w.mustInit(t)
	p = w.init(t)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "initialised already") {
		t.Fatalf("init again: %d %s", code, p.text())
	}
	p, c := w.serve(t, w.token(t, "auditor", "auditor"))
	eventually(t, "ready", isReady(p.url(t)))
	w.verifyLog(t, c)
}

// An init that ended between the guard's memory and the store's first rows is
// run again; so is one that was killed anywhere.
func TestInitAfterCrash(t *testing.T) {
	w := newWorld(t, "")
	must(t, os.MkdirAll(filepath.Join(w.dir, "data"), 0o700))
	p := w.start(t, "guard", "--config", w.config, "--init", w.registry)
	eventually(t, "the guard serves", func() bool { return len(p.entries("the guard serves")) > 0 })
	p.kill()
	killed := 0
	for range 8 {
		p := w.init(t)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		p.kill()
		if p.cmd.ProcessState.ExitCode() == -1 {
			killed++
		}
	}
	t.Logf("%d of 8 were killed on the way", killed)
	p = w.init(t)
	if p.wait(t) != 0 && !strings.Contains(p.text(), "initialised already") {
		t.Fatal(p.text())
	}
	p, c := w.serve(t, w.token(t, "auditor", "auditor"))
	eventually(t, "ready", isReady(p.url(t)))
	w.verifyLog(t, c)
}

func TestInitRefuses(t *testing.T) {
	w := newWorld(t, "")
	other := strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		root, registry string
		want           string
	}{
		"another root":   {"sha256:" + other, w.registry, "pins"},
		"no digest":      {"x", w.registry, "--root"},
		"no registry":    {w.root.String(), filepath.Join(w.dir, "none"), "registry"},
		"not a registry": {w.root.String(), w.config, "registry"},
	} {
		code, _, stderr := w.call("init", "--config", w.config, "--root", test.root, "--registry", test.registry)
		if code == 0 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: %d %s", name, code, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "data", "guard.json")); err == nil {
		t.Error("a refused init left a memory")
	}
	p := w.start(t, "guard", "rebuild", "--config", w.config)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "the database has no sealed log") {
		t.Errorf("a memory rebuilt from nothing: %d %s", code, p.text())
	}
}

// With the database gone, what the guard has signed is no new Kernel.
func TestLostDatabase(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(filepath.Join(w.dir, "data", "kernelgate.db"+suffix))
	}
	p := w.init(t)
	if code := p.wait(t); code != exitFailure || !strings.Contains(p.text(), "restore the database") {
		t.Fatalf("%d %s", code, p.text())
	}
}
