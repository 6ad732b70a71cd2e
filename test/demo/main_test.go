package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The demo is the end-to-end test too: tokens, the guard behind its socket,
// SQLite, engine and deployer together, with nothing in their place.
func TestPlay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	if err := play(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.txt", "bundles/baseline.bundle.json", "bundles/upgrade-42.bundle.json", "bundles/rollback-of-42.bundle.json", "artifacts/upgrade-42.tar.gz"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := play(t.Context(), dir); err == nil {
		t.Error("an earlier demo's directory is played into")
	}
}
