// Command demo plays upgrades for real, on throw-away SoftHSM2 tokens: a
// baseline, one that three people approve, one that is rejected, one whose
// forged approval is refused, and a rollback. It ends with 0 only if all held.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/guard"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const kernelID envelope.ID = "demo"

func main() {
	dir := flag.String("dir", "demo", "a directory to make; it must not exist")
	flag.Parse()
	if err := play(context.Background(), *dir); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func play(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("%w; choose another directory with DEMO_DIR, or remove it", err)
	}
	d := &demo{dir: dir}
	defer d.close()
	if err := d.start(ctx); err != nil {
		return err
	}
	return d.stories(ctx)
}

type demo struct {
	dir       string
	signers   map[string]signer.Signer
	root      envelope.Digest
	store     *storage.SQLite
	artifacts *artifact.Dir
	engine    *workflow.Engine
	stop      context.CancelFunc
	ended     chan error
}

// start brings up tokens, registry, guard, database and engine.
func (d *demo) start(ctx context.Context) (err error) {
	say("Nine SoftHSM2 tokens: five approvers, a requestor, CI, and two of the Kernel.")
	if d.signers, err = provision(ctx, filepath.Join(d.dir, "tokens")); err != nil {
		return err
	}
	now := envelope.TimeOf(time.Now())
	entry, err := register(ctx, d.signers, now)
	if err != nil {
		return err
	}
	d.root = envelope.DigestOf(entry.Document)
	say("Registry version 1, signed by all five. Its digest is the pinned root:\n    %s", d.root)
	if err := os.WriteFile(filepath.Join(d.dir, "root.txt"), []byte(d.root.String()+"\n"), 0o644); err != nil {
		return err
	}
	config := guard.Config{Root: d.root, MemoryPath: filepath.Join(d.dir, "guard.json"), Records: d.signers["records"], Audit: d.signers["audit"], Clock: time.Now}
	if err := guard.Init(config, entry); err != nil {
		return err
	}
	kernel, err := guard.Open(config)
	if err != nil {
		return err
	}
	socket := filepath.Join(d.dir, "guard.sock")
	listener, err := guard.Listen(socket)
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	d.ended = make(chan error, 2)
	go func() { d.ended <- guard.Serve(ctx, kernel, listener) }()
	if err := d.assemble(ctx, socket); err != nil {
		d.ended <- nil
		return err
	}
	if err := d.engine.Init(ctx, entry); err != nil {
		d.ended <- nil
		return err
	}
	go func() { d.ended <- d.engine.Run(ctx) }()
	return nil
}

func (d *demo) assemble(ctx context.Context, socket string) (err error) {
	if d.store, err = storage.OpenSQLite(ctx, filepath.Join(d.dir, "kernelgate.db"), time.Now); err != nil {
		return err
	}
	if d.artifacts, err = artifact.OpenDir(filepath.Join(d.dir, "store"), 64<<20); err != nil {
		return err
	}
	release, err := deploy.OpenRelease(filepath.Join(d.dir, "web"), 3, deploy.DefaultLimits())
	if err != nil {
		return err
	}
	rules, err := policy.Default()
	if err != nil {
		return err
	}
	d.engine = workflow.New(workflow.Config{
		Store: d.store, Artifacts: d.artifacts, Guard: guard.NewClient(socket), Policy: rules, Root: d.root, Instance: "demo",
		Deployer: deploy.Set{"web": release},
		SetEventKey: func(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
			d.store.SetEventKey(id, s)
			return nil
		},
	})
	return nil
}

func (d *demo) close() {
	if d.stop != nil {
		d.stop()
		for range cap(d.ended) {
			if err := <-d.ended; err != nil && !errors.Is(err, context.Canceled) {
				say("On the way out: %v", err)
			}
		}
	}
	if d.store != nil {
		_ = d.store.Close()
	}
	for _, s := range d.signers {
		_ = s.Close()
	}
}

func say(format string, args ...any) { fmt.Printf("- "+format+"\n", args...) }

// stories plays the requirement's example.
func (d *demo) stories(ctx context.Context) error {
	baseline, err := d.propose(ctx, "baseline", "<h1>version 1</h1>", nil)
	if err != nil {
		return err
	}
	if err := d.through(ctx, baseline, "<h1>version 1</h1>", "ryan", "divlead-2", "tech-lead"); err != nil {
		return err
	}
	next, err := d.propose(ctx, "upgrade-42", "<h1>version 42</h1>", baseline)
	if err != nil {
		return err
	}
	if err := d.through(ctx, next, "<h1>version 42</h1>", "ryan", "divlead-1", "sec-eng"); err != nil {
		return err
	}
	if err := d.rejected(ctx, next); err != nil {
		return err
	}
	if err := d.forged(ctx, next); err != nil {
		return err
	}
	undo, err := d.propose(ctx, "rollback-of-42", "", next)
	if err != nil {
		return err
	}
	if err := d.through(ctx, undo, "<h1>version 1</h1>", "divlead-1", "sec-eng", "tech-lead"); err != nil {
		return err
	}
	if err := d.wait(ctx, next, workflow.StateRolledBack); err != nil {
		return err
	}
	say("All of it held. Look at %s/bundles, and at %s/web/current.", d.dir, d.dir)
	return nil
}

// proposal is an upgrade with what is needed to sign about it.
type proposal struct {
	name     string
	manifest upgrade.Manifest
	digest   envelope.Digest
}

// propose signs and submits a manifest on top of live. Without a page it is a
// rollback of live.
func (d *demo) propose(ctx context.Context, name, page string, live *proposal) (*proposal, error) {
	m := upgrade.Manifest{
		BaseRevision: upgrade.None, KernelID: kernelID, KeyID: d.keyID("tech-lead"), ProposedBy: "tech-lead", Rationale: name,
		Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"}, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}},
		Target: upgrade.Target{Name: "web", ManifestID: "site"}, Timestamp: envelope.TimeOf(time.Now()), Type: upgrade.TypeCode, UpgradeID: envelope.UUID(uuid.NewString()),
	}
	if live != nil {
		m.BaseRevision = upgrade.RevisionOf(live.manifest.PatchHash)
	}
	if page == "" {
		m.Type, m.Rollback = upgrade.TypeRollback, &upgrade.Rollback{Reason: "the demo takes it back", UpgradeID: live.manifest.UpgradeID}
		m.PatchHash, _ = live.manifest.BaseRevision.Digest()
	} else {
		data, err := archive(page)
		if err != nil {
			return nil, err
		}
		if m.PatchHash, _, err = d.artifacts.Put(ctx, bytes.NewReader(data)); err != nil {
			return nil, err
		}
		if err := d.leave("artifacts", name+".tar.gz", data); err != nil {
			return nil, err
		}
	}
	env, err := envelope.Seal(ctx, d.signers["tech-lead"], envelope.TypeManifest, m)
	if err != nil {
		return nil, err
	}
	if _, err := d.engine.Submit(ctx, workflow.KindManifest, env); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := d.engine.RequestApprovals(ctx, m.UpgradeID, "tech-lead"); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	say("tech-lead proposes %q, %s.", name, m.UpgradeID)
	return &proposal{name, m, env.PayloadDigest()}, nil
}

func archive(page string) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: int64(len(page))})
	if err == nil {
		_, err = w.Write([]byte(page))
	}
	err = errors.Join(err, w.Close(), z.Close())
	return out.Bytes(), err
}

func (d *demo) leave(folder, name string, data []byte) error {
	if err := os.MkdirAll(filepath.Join(d.dir, folder), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.dir, folder, name), data, 0o644)
}

func (d *demo) keyID(name string) envelope.KeyID {
	return envelope.KeyID(d.signers[name].Public().KeyID())
}

// approve signs an approval in who's name, with the token of by.
func (d *demo) approve(ctx context.Context, p *proposal, who, by string) error {
	env, err := envelope.Seal(ctx, d.signers[by], envelope.TypeApproval, upgrade.Approval{
		ApprovalTs: envelope.TimeOf(time.Now()), ApproverID: envelope.ID(who), KernelID: kernelID, KeyID: d.keyID(by),
		ManifestDigest: p.digest, PatchHash: p.manifest.PatchHash, RegistryDigest: d.root, UpgradeID: p.manifest.UpgradeID,
	})
	if err != nil {
		return err
	}
	_, err = d.engine.Submit(ctx, workflow.KindApproval, env)
	return err
}

func (d *demo) through(ctx context.Context, p *proposal, page string, approvers ...string) error {
	for i, who := range approvers {
		if i == upgrade.Quorum-1 {
			// Two approvals do nothing.
			if err := d.wait(ctx, p, workflow.StatePendingApproval); err != nil {
				return err
			}
		}
		if err := d.approve(ctx, p, who, who); err != nil {
			return fmt.Errorf("%s approves %s: %w", who, p.name, err)
		}
		say("%s approves %q.", who, p.name)
	}
	if err := d.wait(ctx, p, workflow.StateCompleted); err != nil {
		return err
	}
	live, err := os.ReadFile(filepath.Join(d.dir, "web", "current", "index.html"))
	if err != nil {
		return err
	}
	if string(live) != page {
		return fmt.Errorf("%s: what is live is %q, not %q", p.name, live, page)
	}
	bundle, err := d.engine.Bundle(ctx, p.manifest.UpgradeID)
	if err != nil {
		return err
	}
	if _, err := upgrade.VerifyFile(bundle, d.root, true); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	say("The Kernel's token signed %q, it is live, and its bundle verifies.", p.name)
	return d.leave("bundles", p.name+".bundle.json", bundle)
}

func (d *demo) wait(ctx context.Context, p *proposal, want workflow.State) error {
	var state workflow.State
	var reason string
	for range 600 {
		view, err := d.engine.Upgrade(ctx, p.manifest.UpgradeID)
		if err != nil {
			return err
		}
		reason = view.Upgrade.Reason
		if state = view.Upgrade.State; state == want {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s is %s after 30 s, not %s: %s", p.name, state, want, reason)
}

func (d *demo) rejected(ctx context.Context, live *proposal) error {
	p, err := d.propose(ctx, "upgrade-43", "<h1>nobody wants this</h1>", live)
	if err != nil {
		return err
	}
	for _, who := range []string{"ryan", "sec-eng", "divlead-2"} {
		env, err := envelope.Seal(ctx, d.signers[who], envelope.TypeRejection, upgrade.Rejection{
			ApproverID: envelope.ID(who), KernelID: kernelID, KeyID: d.keyID(who), ManifestDigest: p.digest, Reason: "not this one",
			RegistryDigest: d.root, RejectionTs: envelope.TimeOf(time.Now()), UpgradeID: p.manifest.UpgradeID,
		})
		if err != nil {
			return err
		}
		if _, err := d.engine.Submit(ctx, workflow.KindRejection, env); err != nil {
			return err
		}
		say("%s rejects %q.", who, p.name)
	}
	return d.wait(ctx, p, workflow.StateRejected)
}

// forged has the requestor sign an approval in ryan's name.
func (d *demo) forged(ctx context.Context, live *proposal) error {
	p, err := d.propose(ctx, "upgrade-44", "<h1>forged</h1>", live)
	if err != nil {
		return err
	}
	err = d.approve(ctx, p, "ryan", "ops")
	if failure.ClassOf(err) != failure.KeyNotOfPerson {
		return fmt.Errorf("a forged approval was answered with: %v", err) //nolint:errorlint // nil is an answer too
	}
	say("An approval in ryan's name, signed by ops, is refused: %v", err)
	return nil
}
