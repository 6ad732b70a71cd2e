package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/softhsm"
)

// build makes the real commands, as make does.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "../../cmd/kernelgate", "../../cmd/kgctl", "../../cmd/kgverify").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// The demo is the end-to-end test too: tokens, kgctl, gateway and guard as
// processes, the web page, kgverify, with nothing in their place. Played twice,
// it replaces its own directory.
func TestPlay(t *testing.T) {
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	// Too deep for a socket.
	o := options{dir: filepath.Join(t.TempDir(), strings.Repeat("deep", 20), "demo"), bin: build(t)}
	names := []string{"root.txt", "kept-checkpoint.txt", "audit.jsonl", "artifacts/upgrade-42.tar.gz"}
	for _, bundle := range []string{"baseline", "upgrade-42", "rollback-of-42", "upgrade-45", "rollback-of-45", "upgrade-46", "upgrade-47", "rollback-of-47", "upgrade-48"} {
		names = append(names, "bundles/"+bundle+".bundle.json")
	}
	for range 2 {
		if err := play(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(o.dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	if err := claim(dir); err != nil {
		t.Fatalf("an empty directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claim(dir); err != nil {
		t.Fatalf("an earlier demo's: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old")); err == nil {
		t.Error("the earlier demo's files are still there")
	}
	other := t.TempDir()
	kept := filepath.Join(other, "thesis.txt")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claim(other); err == nil || !strings.Contains(err.Error(), "DEMO_DIR") {
		t.Errorf("another's directory: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("another's file was touched")
	}
}
