package deploy_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// git is the command of a person who uses the remote beside the deployer.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=p", "-c", "user.email=p@example.org"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func bareRemote(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "--quiet", "--bare", "--initial-branch=main")
	return dir
}

func openGit(t testing.TB, remote, path string) *deploy.Git {
	t.Helper()
	g, err := deploy.OpenGit(t.Context(), gitConfig(t, remote, path))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func gitConfig(t testing.TB, remote, path string) deploy.GitConfig {
	return deploy.GitConfig{
		Remote: remote, Branch: "main", Path: path, Dir: filepath.Join(t.TempDir(), "clone.git"),
		Author: "Kernel <kernel@example.org>", Timeout: 20 * time.Second, Limits: smallLimits(),
	}
}

// checkout is a person's clone.
func checkout(t testing.TB, remote string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "work")
	git(t, ".", "clone", "--quiet", remote, dir)
	return dir
}

func commitFile(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "--quiet", "-m", "by a person")
	git(t, dir, "push", "--quiet", "origin", "HEAD:main")
}

func TestGitNewBranch(t *testing.T) {
	remote := bareRemote(t)
	g := openGit(t, remote, "")
	if got := live(t, g); got != upgrade.None {
		t.Errorf("live is %s", got)
	}
	// Attributes and ignore files of the artifact are content, and do nothing.
	one := tgz(t, entry{name: "a/run", content: "line\r\n", mode: 0o755}, entry{name: ".gitattributes", content: "* text=auto\n"}, entry{name: ".gitignore", content: "*\n"}, entry{name: "old", content: "x"})
	two := zipOf(t, entry{name: "größe", content: "2"})
	apply(t, g, upgrade.None, one)
	if got := git(t, remote, "ls-tree", "-r", "--format=%(objectmode) %(path)", "main"); got != "100644 .gitattributes\n100644 .gitignore\n100755 a/run\n100644 old" {
		t.Errorf("the branch has %s", got)
	}
	if got := git(t, remote, "cat-file", "-s", "main:a/run"); got != "6" {
		t.Errorf("a/run has %s bytes", got)
	}
	apply(t, g, revision(one), two)
	apply(t, g, revision(one), two) // done already
	apply(t, g, revision(two), one) // a rollback
	if got := git(t, remote, "rev-list", "--count", "main"); got != "3" {
		t.Errorf("%s commits", got)
	}
	want := fmt.Sprintf("Kernel <kernel@example.org>\nKernelgate-Target: web\nKernelgate-Patch: %s\nKernelgate-Upgrade: 0b6bc2a4-0a3d-4d0a-9d5a-3f5f6f3c2a10", revision(one))
	if got := git(t, remote, "log", "-1", "--format=%an <%ae>%n%(trailers)", "main"); got != want {
		t.Errorf("the commit says %s", got)
	}
	// Another gateway, with a clone of its own, sees the same.
	if got := live(t, openGit(t, remote, "")); got != revision(one) {
		t.Errorf("live is %s", got)
	}
}

func TestGitDirectoryAmongOthers(t *testing.T) {
	remote := bareRemote(t)
	person := checkout(t, remote)
	commitFile(t, person, "README", "ours")
	commitFile(t, person, "apps/web/old", "gone after the first deployment")
	g := openGit(t, remote, "apps/web")
	one, two := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"})
	apply(t, g, upgrade.None, one)
	if got := git(t, remote, "ls-tree", "-r", "--name-only", "main"); got != "README\napps/web/v" {
		t.Errorf("the branch has %q", got)
	}
	// Work elsewhere in the repository does not concern the target.
	git(t, person, "pull", "--quiet", "--rebase", "origin", "main")
	commitFile(t, person, "README", "changed")
	if got := live(t, g); got != revision(one) {
		t.Errorf("live is %s", got)
	}
	apply(t, g, revision(one), two)
	// Work in the target's directory does: nothing is deployed over it.
	git(t, person, "pull", "--quiet", "--rebase", "origin", "main")
	commitFile(t, person, "apps/web/v", "by hand")
	before := git(t, remote, "rev-parse", "main")
	if _, err := g.Live(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "changed by others") {
		t.Errorf("error is %v", err)
	}
	if err := g.Apply(t.Context(), change(revision(two), one)); err == nil {
		t.Error("applied over work by hand")
	}
	if got := git(t, remote, "rev-parse", "main"); got != before {
		t.Error("the branch moved")
	}
	// Taking it back repairs it.
	git(t, person, "revert", "--no-edit", "HEAD")
	git(t, person, "push", "--quiet", "origin", "HEAD:main")
	if got := live(t, g); got != revision(two) {
		t.Errorf("live is %s", got)
	}
}

func TestGitFailureChangesNothing(t *testing.T) {
	remote := bareRemote(t)
	g := openGit(t, remote, "")
	one := tgz(t, entry{name: "v", content: "1"})
	apply(t, g, upgrade.None, one)
	before := git(t, remote, "rev-parse", "main")
	for name, archive := range map[string][]byte{
		"git's own":      tgz(t, entry{name: ".git/hooks/x"}),
		"git's own case": tgz(t, entry{name: "a/.GIT/config"}),
		"outside":        tgz(t, entry{name: "../x"}),
		"no archive":     []byte("text"),
	} {
		if err := g.Apply(t.Context(), change(revision(one), archive)); !errors.Is(err, workflow.ErrUnsafeArtifact) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := g.Apply(t.Context(), change(upgrade.None, tgz(t, entry{name: "v", content: "2"}))); !errors.Is(err, workflow.ErrBaseMoved) {
		t.Errorf("error is %v", err)
	}
	// A remote that refuses the push.
	hook := filepath.Join(remote, "hooks", "pre-receive")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho branch is protected >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(t.Context(), change(revision(one), tgz(t, entry{name: "v", content: "2"}))); err == nil || !strings.Contains(err.Error(), "protected") {
		t.Errorf("error is %v", err)
	}
	if got := git(t, remote, "rev-parse", "main"); got != before {
		t.Error("the branch moved")
	}
	if err := os.RemoveAll(remote); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Live(t.Context(), "web"); err == nil {
		t.Errorf("a remote that is gone says %s", got)
	}
}

// Several gateways push at once: one wins, and the branch has one line of commits.
func TestGitConcurrentApplies(t *testing.T) {
	remote := bareRemote(t)
	base := tgz(t, entry{name: "v", content: "base"})
	apply(t, openGit(t, remote, ""), upgrade.None, base)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 4 {
		g := openGit(t, remote, "")
		archive := tgz(t, entry{name: "v", content: fmt.Sprint(i)})
		wg.Go(func() {
			switch err := g.Apply(t.Context(), change(revision(base), archive)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, workflow.ErrBaseMoved) && !strings.Contains(err.Error(), "lock"):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || git(t, remote, "rev-list", "--count", "main") != "2" {
		t.Errorf("%d won, %s commits", won.Load(), git(t, remote, "rev-list", "--count", "main"))
	}
}

func TestOpenGitRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*deploy.GitConfig){
		"option as remote":   func(c *deploy.GitConfig) { c.Remote = "--upload-pack=x" },
		"password in remote": func(c *deploy.GitConfig) { c.Remote = "https://u:secret@example.org/r" },
		"no branch":          func(c *deploy.GitConfig) { c.Branch = "" },
		"bad branch":         func(c *deploy.GitConfig) { c.Branch = "a..b" },
		"option as branch":   func(c *deploy.GitConfig) { c.Branch = "-x" },
		"path out":           func(c *deploy.GitConfig) { c.Path = "../x" },
		"path to git":        func(c *deploy.GitConfig) { c.Path = "a/.git" },
		"no author":          func(c *deploy.GitConfig) { c.Author = "someone" },
		"no timeout":         func(c *deploy.GitConfig) { c.Timeout = 0 },
		"no limits":          func(c *deploy.GitConfig) { c.Limits = deploy.Limits{} },
		"relative clone":     func(c *deploy.GitConfig) { c.Dir = "clone" },
	} {
		c := gitConfig(t, "/nowhere", "")
		spoil(&c)
		if _, err := deploy.OpenGit(t.Context(), c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
