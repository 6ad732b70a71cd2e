package browser_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/uuid"
	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// change is what a requestor proposes in these tests.
type change struct {
	rationale, page string
	base            upgrade.Revision
	components      []string
	tests           []string
}

// propose submits a manifest of ops and asks for approvals.
func (w *world) propose(t *testing.T, c change) (upgrade.Manifest, envelope.Digest) {
	t.Helper()
	patch, _, err := w.artifacts.Put(t.Context(), bytes.NewReader(archive(t, c.page)))
	check(t, err)
	return w.proposeManifest(t, c, patch, func(*upgrade.Manifest) {})
}

// proposeManifest proposes an artifact that is stored, by an edited manifest.
func (w *world) proposeManifest(t *testing.T, c change, patch envelope.Digest, edit func(*upgrade.Manifest)) (upgrade.Manifest, envelope.Digest) {
	t.Helper()
	if c.tests == nil {
		c.tests = []string{}
	}
	m := upgrade.Manifest{
		BaseRevision: c.base, KernelID: kernelID, KeyID: envelope.KeyID(w.signers["ops"].Public().KeyID()), ProposedBy: "ops", Rationale: c.rationale,
		Impact: upgrade.Impact{Components: c.components, Downtime: "none expected"}, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: c.tests}, PatchHash: patch,
		Target: upgrade.Target{Name: "web", Repository: "https://git.example.org/web", Path: "site", Commit: strings.Repeat("a1", 20)}, Timestamp: envelope.TimeOf(time.Now()), Type: upgrade.TypeCode, UpgradeID: envelope.UUID(uuid.NewString()),
	}
	edit(&m)
	env, err := envelope.Seal(t.Context(), w.signers["ops"], envelope.TypeManifest, m)
	check(t, err)
	_, err = w.engine.Submit(t.Context(), workflow.KindManifest, env)
	check(t, err)
	_, err = w.engine.RequestApprovals(t.Context(), m.UpgradeID, "ops")
	check(t, err)
	return m, env.PayloadDigest()
}

func archive(t *testing.T, page string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	check(t, w.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: int64(len(page))}))
	_, err := w.Write([]byte(page))
	check(t, err)
	check(t, w.Close())
	check(t, z.Close())
	return out.Bytes()
}

// words are what kgctl fingerprint prints on another machine.
func words(manifest, patch envelope.Digest) string {
	sum := sha256.Sum256([]byte(manifest.String() + "\n" + patch.String()))
	var bits strings.Builder
	for _, b := range sum[:9] {
		for i := 7; i >= 0; i-- {
			bits.WriteByte('0' + b>>i&1)
		}
	}
	out := make([]string, 6)
	for i := range out {
		index := 0
		for _, bit := range bits.String()[i*11 : i*11+11] {
			index = index*2 + int(bit-'0')
		}
		out[i] = wordlists.English[index]
	}
	return strings.Join(out, " ")
}

func (p *person) approve(m upgrade.Manifest, digest envelope.Digest) {
	p.t.Helper()
	p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
	p.run(chromedp.SendKeys(chromedp.CSS(`[name="words"]`), words(digest, m.PatchHash)),
		chromedp.Click(chromedp.CSS(`form[data-kind="approval"] button.main`)), chromedp.WaitVisible(chromedp.CSS("#approvals")))
}

func TestThreeApproveInTheBrowser(t *testing.T) {
	w := newWorld(t)
	chromium := browser(t)
	m, digest := w.propose(t, change{rationale: "Release 42 of the shop's front page\nThe old one says closed on Mondays, which is over.", page: "<h1>42</h1>", base: upgrade.None, components: []string{"web", "shop"}})
	watcher := w.sit(t, chromium, "tech-lead")
	watcher.enrol("approver")
	watcher.sees("Needs you")
	watcher.shot("inbox-needs-you")
	watcher.open("/upgrades/" + string(m.UpgradeID))
	watcher.shot("upgrade-pending")
	for i, name := range []string{"ryan", "divlead-1", "sec-eng"} {
		p := w.sit(t, chromium, name)
		p.enrol("approver")
		if i == 0 {
			p.open("/upgrades/" + string(m.UpgradeID) + "/approve")
			p.shot("approve")
		}
		p.approve(m, digest)
		p.sees("signed")
	}
	watcher.open("/upgrades/" + string(m.UpgradeID))
	watcher.sees("Completed")
	watcher.shot("upgrade-completed")
	for _, page := range []string{"registry", "audit", "system"} {
		watcher.open("/" + page)
		watcher.shot(page)
	}
	watcher.open("/upgrades/" + string(m.UpgradeID))
	watcher.size(360, true)
	watcher.shot("upgrade-completed-narrow-dark")
	watcher.open("/")
	watcher.shot("inbox-narrow-dark")
}
