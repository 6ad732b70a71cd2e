package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// A database from an old backup, below a guard that has sealed more: the
// gateway says so and takes nothing, also after a restart, until the newest
// database is back.
func TestOldBackup(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "operator")
	p, c := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	first := w.propose(t, c, "one", upgrade.None)
	w.waitState(t, c, first.UpgradeID, "completed")
	p.signal(syscall.SIGTERM)
	p.wait(t)
	old := w.database(t)
	p, c = w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	second := w.propose(t, c, "two", upgrade.RevisionOf(first.PatchHash))
	w.waitState(t, c, second.UpgradeID, "completed")
	p.signal(syscall.SIGTERM)
	p.wait(t)
	newest := w.database(t)
	w.restore(t, old)
	for range 2 {
		p, c = w.serve(t, token)
		eventually(t, "serve says so", func() bool {
			return len(p.entries("the gateway stops work: its log is not the one that was sealed; reading goes on")) == 1 &&
				strings.Contains(p.text(), "restore the newest")
		})
		eventually(t, "not ready", func() bool {
			status, body := ready(p.url(t))
			return status == 503 && strings.Contains(body, `"log":"failed"`)
		})
		_, env := w.manifest(t, w.root)
		if _, err := c.Submit(t.Context(), env); err == nil || !strings.Contains(err.Error(), string(failure.AuditFork)) {
			t.Errorf("a record is taken, or refused for another reason: %v", err)
		}
		w.readable(t, c, first)
		p.signal(syscall.SIGTERM)
		p.wait(t)
	}
	w.restore(t, newest)
	p, c = w.serve(t, token)
	eventually(t, "ready with the newest", isReady(p.url(t)))
	third := w.propose(t, c, "three", upgrade.RevisionOf(second.PatchHash))
	w.waitState(t, c, third.UpgradeID, "completed")
}

func (w *world) readable(t *testing.T, c *client.Client, m upgrade.Manifest) {
	t.Helper()
	detail, err := c.Upgrade(t.Context(), m.UpgradeID)
	if err != nil || detail.Upgrade.State != "completed" {
		t.Errorf("reading does not go on: %v", err)
	}
}

// database is the files of a database that no gateway has open.
func (w *world) database(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(w.dir, "data", "kernelgate.db*"))
	must(t, err)
	for _, name := range names {
		files[name], err = os.ReadFile(name)
		must(t, err)
	}
	return files
}

func (w *world) restore(t *testing.T, files map[string][]byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.dir, "data", "kernelgate.db*"))
	must(t, err)
	for _, name := range names {
		must(t, os.Remove(name))
	}
	for name, data := range files {
		must(t, os.WriteFile(name, data, 0o600))
	}
}
