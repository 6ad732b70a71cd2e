package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// propose submits a manifest for a page and has three approve it.
func (w *world) propose(t *testing.T, c *client.Client, page string, base upgrade.Revision) upgrade.Manifest {
	t.Helper()
	digest, err := c.PutArtifact(t.Context(), strings.NewReader(tarball(t, page)))
	must(t, err)
	m, _ := w.manifest(t, digest)
	m.BaseRevision = base
	env, err := envelope.Seal(t.Context(), w.people["tech-lead"], envelope.TypeManifest, m)
	must(t, err)
	_, err = c.Submit(t.Context(), env)
	must(t, err)
	_, err = c.RequestApprovals(t.Context(), m.UpgradeID)
	must(t, err)
	for _, who := range []string{"ryan", "sec-eng", "divlead-1"} {
		w.approve(t, c, m, env.PayloadDigest(), who)
	}
	return m
}

// bundle is the verified bundle file of a finished upgrade.
func (w *world) bundle(t *testing.T, c *client.Client, id envelope.UUID) *upgrade.File {
	t.Helper()
	data, err := c.Bundle(t.Context(), id)
	must(t, err)
	if _, err := upgrade.VerifyFile(data, w.root, true); err != nil {
		t.Fatal(err)
	}
	var file upgrade.File
	must(t, envelope.DecodeCanonical(data, len(data), &file))
	return &file
}

// sameRecord: asked again, the guard gives the record that it signed, and for
// another bundle of that upgrade none.
func sameRecord(t *testing.T, g *guard.Client, file *upgrade.File) {
	t.Helper()
	again, err := g.SignRecord(t.Context(), file.QuorumBundle, workflow.LogProof{})
	if err != nil || string(again.Bytes()) != string(file.AppliedRecord.Bytes()) {
		t.Errorf("the record is signed anew, or not at all: %v", err)
	}
	other := file.QuorumBundle
	other.Quorum.DecidedAt = other.Quorum.DecidedAt.Add(1)
	if _, err := g.SignRecord(t.Context(), other, workflow.LogProof{}); failure.ClassOf(err) != failure.AlreadySigned {
		t.Errorf("another bundle of the same upgrade: %v", err)
	}
}

// A guard whose memory is lost signs nothing, says so, and is rebuilt from the log.
func TestLostMemory(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	first := w.propose(t, c, "one", upgrade.None)
	w.waitState(t, c, first.UpgradeID, "completed")
	file := w.bundle(t, c, first.UpgradeID)

	if code, _, stderr := w.call("guard", "rebuild", "--config", w.config); code != exitFailure || !strings.Contains(stderr, "stop it first") {
		t.Errorf("rebuild beside a gateway: %d %s", code, stderr)
	}
	memory := filepath.Join(w.dir, "data", "guard.json")
	must(t, os.Remove(memory))
	killGuard(t, p)
	eventually(t, "serve says what is to be done", func() bool {
		said := p.entries("the guard runs, but signs nothing; reading goes on")
		return len(said) > 0 && strings.Contains(fmt.Sprint(said), "memory is empty") && strings.Contains(fmt.Sprint(said), "guard rebuild")
	})
	second := w.propose(t, c, "two", upgrade.RevisionOf(first.PatchHash))
	eventually(t, "the engine says why the guard does not sign", func() bool {
		return strings.Contains(fmt.Sprint(p.entries("an upgrade could not go on; it is taken up again")), "memory is empty")
	})
	w.waitState(t, c, second.UpgradeID, "applying")
	eventually(t, "not ready, for the guard's sake", func() bool {
		status, body := ready(p.url(t))
		return status == 503 && strings.Contains(body, `"guard":"failed"`)
	})
	w.bundle(t, c, first.UpgradeID) // reading goes on
	// A gateway alone cannot have the memory replaced.
	own := guard.NewClient(filepath.Join(w.dir, "data", "guard.sock"))
	defer own.Close()
	config, err := loadConfig(w.config)
	must(t, err)
	db, err := openAccounts(t.Context(), config)
	must(t, err)
	defer db.Close()
	if err := own.Rebuild(t.Context(), guard.FromStore(db)); failure.ClassOf(err) != failure.RoleNotAllowed {
		t.Errorf("rebuilt without the operator: %v", err)
	}
	p.signal(syscall.SIGTERM)
	p.wait(t)

	rebuilt := w.start(t, "guard", "rebuild", "--config", w.config)
	if code := rebuilt.wait(t); code != 0 {
		t.Fatal(rebuilt.text())
	}
	p, c = w.serve(t, w.token(t, "tech-lead-2", "operator"))
	w.waitState(t, c, second.UpgradeID, "completed")
	sameRecord(t, own, file)
	sameRecord(t, own, w.bundle(t, c, second.UpgradeID))
	status, err := own.Status(t.Context())
	if err != nil || status.Counts.Records != 2 {
		t.Errorf("%+v %v", status.Counts, err)
	}
}
