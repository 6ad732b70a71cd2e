// Package e2e takes upgrades through the real parts together: tokens, the
// guard behind its socket, SQLite, the engine and the release deployer.
package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	kernelID  envelope.ID   = "demo"
	upgradeID envelope.UUID = "0b7f1d5e-3c1a-4c57-9d0e-000000000042"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tokens makes one SoftHSM2 token and key for everybody, then opens them all.
func tokens(t *testing.T) map[string]signer.Signer {
	env := must(softhsm.New(t.TempDir()))(t)
	uris := map[string]string{}
	for name, algorithm := range map[string]signer.Algorithm{
		"ryan": signer.ECDSAP256SHA256, "sec-eng": signer.Ed25519, "tech-lead": signer.ECDSAP384SHA384, "divlead-1": signer.RSAPSSSHA256, "divlead-2": signer.RSAPKCS1SHA256,
		"ops": signer.ECDSAP256SHA256, "ci": signer.ECDSAP256SHA256, "records": signer.ECDSAP256SHA256, "audit": signer.Ed25519,
	} {
		token := must(env.CreateToken(name))(t)
		key := must(token.GenerateKey(name, []byte{1}, algorithm))(t)
		uris[name] = key.URI.Text()
	}
	signers := map[string]signer.Signer{}
	for name, uri := range uris {
		s := must(open.Open(t.Context(), uri, open.Options{}))(t)
		t.Cleanup(func() { check(t, s.Close()) })
		signers[name] = s
	}
	return signers
}

// register makes version 1, signed by all five on their tokens.
func register(t *testing.T, signers map[string]signer.Signer, now envelope.Time) (keyregistry.SignedDocument, envelope.Digest) {
	key := func(name string) []keyregistry.Key {
		s := signers[name]
		return []keyregistry.Key{keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginPKCS11, now.Add(-3600), now.Add(86400))}
	}
	doc := &keyregistry.Document{
		IssuedAt: now, KernelID: kernelID, Rules: keyregistry.DefaultRules(), Version: 1,
		CI:         []keyregistry.Person{{ID: "ci", Name: "CI", Keys: key("ci")}},
		Requestors: []keyregistry.Person{{ID: "ops", Name: "Operations", Keys: key("ops")}},
		Kernel:     keyregistry.KernelKeys{Audit: key("audit"), Records: key("records")},
	}
	var five []signer.Signer
	for _, p := range []struct {
		id   string
		role keyregistry.Role
	}{
		{"divlead-1", keyregistry.DivisionLead}, {"divlead-2", keyregistry.DivisionLead}, {"ryan", keyregistry.SuperAdmin},
		{"sec-eng", keyregistry.SecurityEngineer}, {"tech-lead", keyregistry.TechnicalLead},
	} {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(p.id), Name: p.id, Role: p.role, Keys: key(p.id)})
		five = append(five, signers[p.id])
	}
	entry := registrytest.Entry(doc, five...)
	return entry, envelope.DigestOf(entry.Document)
}

// release is a web page as a tar.gz.
func release(t *testing.T, page string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	check(t, w.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: int64(len(page))}))
	must(w.Write([]byte(page)))(t)
	check(t, w.Close())
	check(t, z.Close())
	return out.Bytes()
}

func TestOneUpgradeOnRealTokens(t *testing.T) {
	dir, now := t.TempDir(), envelope.TimeOf(time.Now())
	signers := tokens(t)
	entry, root := register(t, signers, now)

	config := guard.Config{Root: root, MemoryPath: filepath.Join(dir, "guard.json"), Records: signers["records"], Audit: signers["audit"], Clock: time.Now}
	check(t, guard.Init(config, entry))
	kernel := must(guard.Open(config))(t)
	socket := filepath.Join(dir, "guard.sock")
	listener := must(guard.Listen(socket))(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- guard.Serve(ctx, kernel, listener) }()

	store := must(storage.OpenSQLite(ctx, filepath.Join(dir, "kernelgate.db"), time.Now))(t)
	artifacts := must(artifact.OpenDir(filepath.Join(dir, "artifacts"), 1<<20))(t)
	web := filepath.Join(dir, "web")
	engine := workflow.New(workflow.Config{
		Store: store, Artifacts: artifacts, Guard: guard.NewClient(socket), Policy: must(policy.Default())(t), Root: root, Instance: "e2e",
		Deployer: deploy.Set{"web": must(deploy.OpenRelease(web, 2, deploy.DefaultLimits()))(t)},
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			store.SetEventKey(id, s)
			return nil
		},
	})
	check(t, engine.Init(ctx, entry))
	go func() { served <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-served; err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		check(t, store.Close())
	})

	patch, _, err := artifacts.Put(ctx, bytes.NewReader(release(t, "<h1>upgrade-42</h1>")))
	check(t, err)
	keyID := func(name string) envelope.KeyID { return envelope.KeyID(signers[name].Public().KeyID()) }
	manifest := must(envelope.Seal(ctx, signers["tech-lead"], envelope.TypeManifest, upgrade.Manifest{
		BaseRevision: upgrade.None, KernelID: kernelID, KeyID: keyID("tech-lead"), PatchHash: patch, ProposedBy: "tech-lead", Rationale: "upgrade-42",
		Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"}, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}},
		Target: upgrade.Target{Name: "web", ManifestID: "site"}, Timestamp: now, Type: upgrade.TypeCode, UpgradeID: upgradeID,
	}))(t)
	must(engine.Submit(ctx, workflow.KindManifest, manifest))(t)
	must(engine.RequestApprovals(ctx, upgradeID, "tech-lead"))(t)
	for _, who := range []string{"ryan", "divlead-1", "sec-eng"} {
		if who == "sec-eng" {
			// Two approvals do nothing.
			if _, err := os.Stat(filepath.Join(web, "current")); err == nil {
				t.Fatal("two approvals were enough")
			}
		}
		approval := must(envelope.Seal(ctx, signers[who], envelope.TypeApproval, upgrade.Approval{
			ApprovalTs: envelope.TimeOf(time.Now()), ApproverID: envelope.ID(who), KernelID: kernelID, KeyID: keyID(who),
			ManifestDigest: manifest.PayloadDigest(), PatchHash: patch, RegistryDigest: root, UpgradeID: upgradeID,
		}))(t)
		must(engine.Submit(ctx, workflow.KindApproval, approval))(t)
	}

	state := workflow.State("")
	for range 200 {
		view := must(engine.Upgrade(ctx, upgradeID))(t)
		if state = view.Upgrade.State; state == workflow.StateCompleted {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if state != workflow.StateCompleted {
		t.Fatalf("after 10 s the upgrade is %s", state)
	}
	page, err := os.ReadFile(filepath.Join(web, "current", "index.html"))
	if err != nil || string(page) != "<h1>upgrade-42</h1>" {
		t.Fatalf("what is live is %q, %v", page, err)
	}
	v, err := upgrade.VerifyFile(must(engine.Bundle(ctx, upgradeID))(t), root, true)
	if err != nil {
		t.Fatal(err)
	}
	if v.Case != upgrade.CaseQuorum || len(v.Approvers) != upgrade.Quorum || v.LogSize == 0 {
		t.Errorf("the bundle proves %s by %v in a log of %d", v.Case, v.Approvers, v.LogSize)
	}
}
