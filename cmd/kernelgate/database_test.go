package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// One Kernel begins on SQLite, moves to PostgreSQL, and is restored from a
// backup of that: its log goes on, whole, each time.
func TestMigrateBackupRestore(t *testing.T) {
	server := storagetest.Shared(t)
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "operator")
	p, c := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	first := w.change(t, "web", "one", upgrade.None)
	w.play(t, first, c)
	backups := filepath.Join(w.dir, "backups")
	must(t, os.Mkdir(backups, 0o700))
	w.must(t, "backup", "--config", w.config, "-o", backups) // beside a gateway at work
	w.must(t, "backup", "--config", w.config, "-o", filepath.Join(backups, "named.db"))
	if code, _, stderr := w.call("backup", "--config", w.config, "-o", filepath.Join(backups, "named.db")); code == 0 || !strings.Contains(stderr, "exists already") {
		t.Errorf("a backup is written over: %s", stderr)
	}
	to := server.Database(t)
	if code, _, stderr := w.call("migrate", "--config", w.config, "--to", to); code == 0 || !strings.Contains(stderr, "another gateway uses") {
		t.Errorf("a database in use is migrated: %s", stderr)
	}
	w.end(t, p)

	out := w.must(t, "migrate", "--config", w.config, "--to", to)
	if !strings.Contains(out, "The log is whole") || strings.Count(out, "sha256:") != 13 {
		t.Errorf("migrate says: %s", out)
	}
	if code, _, stderr := w.call("migrate", "--config", w.config, "--to", to); code == 0 || !strings.Contains(stderr, "not empty") {
		t.Errorf("a database is migrated over another: %s", stderr)
	}
	w.writeConfig(t, "database:\n  url: "+to+"\n")
	p, c = w.serve(t, token)
	eventually(t, "ready on PostgreSQL", isReady(p.url(t)))
	second := w.change(t, "web", "two", upgrade.RevisionOf(first.m.PatchHash))
	w.play(t, second, c)
	w.must(t, "backup", "--config", w.config, "-o", filepath.Join(backups, "postgres.db"))
	w.end(t, p)

	w.writeConfig(t, "database:\n  url: sqlite:restored.db\n")
	w.must(t, "restore", "--config", w.config, "--from", filepath.Join(backups, "postgres.db"))
	p, c = w.serve(t, token)
	eventually(t, "ready on what was restored", isReady(p.url(t)))
	third := w.change(t, "web", "three", upgrade.RevisionOf(second.m.PatchHash))
	w.play(t, third, c)
	w.verifyLog(t, c)
	files, err := os.ReadDir(backups)
	must(t, err)
	if len(files) != 3 {
		t.Errorf("of three backups %v are left", files)
	}
}

func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := w.call(args...)
	if code != 0 {
		t.Fatalf("%s: %s", strings.Join(args, " "), stderr)
	}
	return out
}

func (w *world) end(t *testing.T, p *process) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Fatalf("SIGTERM: exit code %d", code)
	}
}

// change is an upgrade as people sign it.
type change struct {
	page    string
	m       upgrade.Manifest
	records []envelope.Envelope // the manifest first
}

func (w *world) change(t *testing.T, target, page string, base upgrade.Revision) change {
	t.Helper()
	c := change{page: tarball(t, page)}
	c.m, _ = w.manifest(t, envelope.DigestOf([]byte(c.page)))
	c.m.Target.Name, c.m.BaseRevision = envelope.ID(target), base
	env, err := envelope.Seal(context.Background(), w.people["tech-lead"], envelope.TypeManifest, c.m)
	must(t, err)
	c.records = append(c.records, env)
	for _, who := range []string{"ryan", "sec-eng", "divlead-1"} {
		approval, err := envelope.Seal(context.Background(), w.people[who], envelope.TypeApproval, upgrade.Approval{
			ApprovalTs: envelope.TimeOf(time.Now()), ApproverID: envelope.ID(who), KernelID: "kernel-test", KeyID: envelope.KeyID(w.people[who].Public().KeyID()),
			ManifestDigest: env.PayloadDigest(), PatchHash: c.m.PatchHash, RegistryDigest: w.root, UpgradeID: c.m.UpgradeID,
		})
		must(t, err)
		c.records = append(c.records, approval)
	}
	return c
}

// play takes a change through gateways, each step by one of them, again until
// it is acknowledged, and waits until it is completed.
func (w *world) play(t *testing.T, ch change, gateways ...*client.Client) {
	t.Helper()
	acked := func(what string, f func(*client.Client) error) {
		t.Helper()
		var err error
		for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = f(gateways[rand.IntN(len(gateways))]); err == nil {
				return
			}
		}
		t.Errorf("%s is not acknowledged: %v", what, err)
	}
	acked("the artifact", func(c *client.Client) error {
		_, err := c.PutArtifact(context.Background(), strings.NewReader(ch.page))
		return err
	})
	for i, env := range ch.records {
		acked("a record", func(c *client.Client) error {
			_, err := c.Submit(context.Background(), env)
			return err
		})
		if i == 0 {
			acked("the request for approvals", func(c *client.Client) error {
				_, err := c.RequestApprovals(context.Background(), ch.m.UpgradeID)
				return err
			})
		}
	}
	acked("its completion", func(c *client.Client) error {
		d, err := c.Upgrade(context.Background(), ch.m.UpgradeID)
		if err == nil && d.Upgrade.State != "completed" {
			err = fmt.Errorf("it is %s: %v", d.Upgrade.State, d.Upgrade.Reason)
		}
		return err
	})
}

// Two gateways and a guard, as real processes on one PostgreSQL, at work while
// each is killed in turn and the database crashes: what was acknowledged is
// there, everything is applied once, and the log is whole.
func TestTwoGatewaysUnderFaults(t *testing.T) {
	server := storagetest.New(t)
	const targets = 3
	more := ""
	for i := range targets {
		more += fmt.Sprintf("  t%d: {release: {dir: t%d}}\n", i, i)
	}
	w := newWorld(t, more+"database:\n  url: "+server.Database(t)+"\n")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "operator")
	text, err := os.ReadFile(w.config)
	must(t, err)
	var starts [3]func() *process
	var running [3]*process
	starts[2] = func() *process { return w.start(t, "guard", "--config", w.config) }
	var gateways []*client.Client
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		must(t, l.Close())
		file := filepath.Join(w.dir, fmt.Sprintf("gateway%d.yaml", i))
		own := strings.Replace(string(text), "listen: 127.0.0.1:0\n", fmt.Sprintf("listen: %s\ninstance: gateway-%d\n", l.Addr(), i), 1)
		own = strings.Replace(own, "guard:\n", "guard:\n  address: unix:"+filepath.Join(w.dir, "data", "guard.sock")+"\n", 1)
		must(t, os.WriteFile(file, []byte(own), 0o600))
		starts[i] = func() *process { return w.start(t, "serve", "--config", file) }
		c, err := client.New("http://"+l.Addr().String(), token, nil)
		must(t, err)
		gateways = append(gateways, c)
	}
	for i := range starts {
		running[i] = starts[i]()
	}
	for i := range gateways {
		eventually(t, "ready", isReady(running[i].url(t)))
	}
	second := w.start(t, "serve", "--config", filepath.Join(w.dir, "gateway0.yaml"))
	if code := second.wait(t); code == 0 {
		t.Error("a second gateway of one name serves")
	}
	eventually(t, "it says why not", func() bool { return strings.Contains(second.text(), `instance name "gateway-0"`) })

	played := make([][]change, targets)
	end := time.Now().Add(12 * time.Second)
	var group sync.WaitGroup
	for i := range targets {
		group.Go(func() {
			base := upgrade.None
			for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
				ch := w.change(t, fmt.Sprintf("t%d", i), fmt.Sprintf("page %d of %d", n, i), base)
				w.play(t, ch, gateways...)
				base = upgrade.RevisionOf(ch.m.PatchHash)
				played[i] = append(played[i], ch)
			}
		})
	}
	for i := 0; time.Now().Before(end); i++ {
		time.Sleep(time.Second)
		if victim := i % 4; victim < 3 {
			running[victim].kill()
			running[victim] = starts[victim]()
		} else {
			must(t, errors.Join(server.Kill(), server.Run()))
		}
	}
	group.Wait()
	for i := range gateways { // one may have been killed a moment ago
		eventually(t, "ready again", isReady(running[i].url(t)))
	}
	w.checkPlayed(t, played, gateways)
	last := played[0][len(played[0])-1].m
	w.watched(t, w.change(t, "t0", "seen elsewhere", upgrade.RevisionOf(last.PatchHash)), gateways[0], gateways[1])
}

// watched: what one gateway does is on the other's stream of events.
func (w *world) watched(t *testing.T, ch change, by, on *client.Client) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	seen := map[string]bool{}
	done := make(chan error, 1)
	go func() {
		done <- on.Watch(ctx, -1, func(e client.Event) error {
			if e.UpgradeId != nil && *e.UpgradeId == string(ch.m.UpgradeID) {
				seen[e.Type] = true
			}
			if seen["upgrade.completed"] {
				return client.ErrStop
			}
			return nil
		})
	}()
	time.Sleep(500 * time.Millisecond) // so that the stream is there
	w.play(t, ch, by)
	if err := <-done; err != nil || !seen["upgrade.created"] {
		t.Errorf("of what the other gateway did the stream shows %v: %v", seen, err)
	}
}

func (w *world) checkPlayed(t *testing.T, played [][]change, gateways []*client.Client) {
	t.Helper()
	total, records, logged, bytes := 0, 0, 0, 0
	for i, list := range played {
		for _, ch := range list {
			total++
			d, err := gateways[total%2].Upgrade(t.Context(), ch.m.UpgradeID)
			must(t, err)
			count := map[string]int{}
			for _, r := range d.Records {
				count[r.Digest]++
				count[r.Kind]++
				bytes += len(r.Body)
			}
			events, err := gateways[total%2].UpgradeEvents(t.Context(), ch.m.UpgradeID)
			must(t, err)
			for _, e := range events {
				count[e.Type]++
				bytes += len(e.Leaf)
			}
			records, logged = records+len(d.Records), logged+len(events)
			for _, env := range ch.records {
				if count[env.PayloadDigest().String()] != 1 {
					t.Errorf("a record that was acknowledged is there %d times", count[env.PayloadDigest().String()])
				}
			}
			for _, once := range []string{"applied-record", "upgrade.applied", "upgrade.completed"} {
				if count[once] != 1 {
					t.Errorf("upgrade %s has %d of %s", ch.m.UpgradeID, count[once], once)
				}
			}
		}
		if len(list) == 0 {
			t.Errorf("nothing was played at target %d", i)
			continue
		}
		live, err := os.ReadFile(filepath.Join(w.dir, fmt.Sprintf("t%d", i), "current", "index.html"))
		if want := fmt.Sprintf("page %d of %d", len(list)-1, i); err != nil || string(live) != want {
			t.Errorf("%q is live, not %q: %v", live, want, err)
		}
	}
	t.Logf("%d upgrades were completed, with %d records and %d events of %d bytes in all", total, records, logged, bytes)
	for _, c := range gateways {
		w.verifyLog(t, c)
	}
}
