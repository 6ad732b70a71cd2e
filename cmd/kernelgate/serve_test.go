package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func get(url string) (int, string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

func ready(url string) (int, string) { return get(url + "/readyz") }

func isReady(url string) func() bool {
	return func() bool { status, _ := ready(url); return status == http.StatusOK }
}

// manifest is one for a baseline at the target, which may not exist: then its
// patch is a random digest.
func (w *world) manifest(t *testing.T, patch envelope.Digest) (upgrade.Manifest, envelope.Envelope) {
	t.Helper()
	m := upgrade.Manifest{
		BaseRevision: upgrade.None, KernelID: "kernel-test", KeyID: envelope.KeyID(w.people["tech-lead"].Public().KeyID()), ProposedBy: "tech-lead", Rationale: "a page",
		Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"}, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}},
		Target: upgrade.Target{Name: "web", ManifestID: "site"}, Timestamp: envelope.TimeOf(time.Now()), Type: upgrade.TypeCode,
		UpgradeID: envelope.UUID(uuid.NewString()), PatchHash: patch,
	}
	env, err := envelope.Seal(t.Context(), w.people["tech-lead"], envelope.TypeManifest, m)
	must(t, err)
	return m, env
}

func (w *world) approve(t *testing.T, c *client.Client, m upgrade.Manifest, digest envelope.Digest, who string) {
	t.Helper()
	env, err := envelope.Seal(t.Context(), w.people[who], envelope.TypeApproval, upgrade.Approval{
		ApprovalTs: envelope.TimeOf(time.Now()), ApproverID: envelope.ID(who), KernelID: "kernel-test", KeyID: envelope.KeyID(w.people[who].Public().KeyID()),
		ManifestDigest: digest, PatchHash: m.PatchHash, RegistryDigest: w.root, UpgradeID: m.UpgradeID,
	})
	must(t, err)
	_, err = c.Submit(t.Context(), env)
	must(t, err)
}

func (w *world) waitState(t *testing.T, c *client.Client, id envelope.UUID, want string) {
	t.Helper()
	eventually(t, "the upgrade is "+want, func() bool {
		detail, err := c.Upgrade(context.Background(), id)
		return err == nil && string(detail.Upgrade.State) == want
	})
}

// One upgrade goes through real processes, in spite of a guard that is killed
// on the way.
func TestServe(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	page := tarball(t, "<h1>hello</h1>")
	digest, err := c.PutArtifact(t.Context(), strings.NewReader(page))
	must(t, err)
	m, env := w.manifest(t, digest)
	_, err = c.Submit(t.Context(), env)
	must(t, err)
	_, err = c.RequestApprovals(t.Context(), m.UpgradeID)
	must(t, err)
	w.approve(t, c, m, env.PayloadDigest(), "ryan")
	w.approve(t, c, m, env.PayloadDigest(), "sec-eng")
	killGuard(t, p)
	w.approve(t, c, m, env.PayloadDigest(), "divlead-1")
	w.waitState(t, c, m.UpgradeID, "completed")
	live, err := os.ReadFile(filepath.Join(w.dir, "web", "current", "index.html"))
	if err != nil || string(live) != "<h1>hello</h1>" {
		t.Fatalf("live is %q, %v", live, err)
	}
	bundle, err := c.Bundle(t.Context(), m.UpgradeID)
	must(t, err)
	if _, err := upgrade.VerifyFile(bundle, w.root, true); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/livez": "ok", "/metrics": `kernelgate_check_up{check="guard"} 1`, "/log/checkpoint": "kernelgate/kernel-test"} {
		if status, body := get(p.url(t) + path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	// The guard signed what the log accounts for, and nothing else.
	eventually(t, "the counts agree", func() bool {
		_, body := get(p.url(t) + "/metrics")
		return strings.Contains(body, `kernelgate_guard_signatures{kind="record"} 1`) && strings.Contains(body, `kernelgate_log_signatures{kind="record"} 1`) &&
			strings.Contains(body, `kernelgate_log_events{type="guard.denied"} 0`) && strings.Contains(body, "kernelgate_log_newest_event_timestamp_seconds")
	})
}
