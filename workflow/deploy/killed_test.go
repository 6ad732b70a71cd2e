package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const crashKind = "KERNELGATE_TEST_CRASH_KIND"

// openKind opens a deployer whose target is in dir, as every process would.
func openKind(kind, dir string) (workflow.Deployer, error) {
	if kind == "exec" {
		return deploy.NewExec([]string{filepath.Join(dir, "program"), dir}, time.Minute, 1<<20)
	}
	return deploy.OpenGit(context.Background(), deploy.GitConfig{Remote: filepath.Join(dir, "remote"), Branch: "main", Dir: filepath.Join(dir, "clone"),
		Author: "Kernel <kernel@example.org>", Timeout: time.Minute, Limits: smallLimits()})
}

// applyOnce applies dir's artifact on what is live.
func applyOnce(kind, dir string) error {
	d, err := openKind(kind, dir)
	if err != nil {
		return err
	}
	base, err := d.Live(context.Background(), "web")
	if err != nil {
		return err
	}
	artifact, err := os.ReadFile(filepath.Join(dir, "next"))
	if err != nil {
		return err
	}
	return d.Apply(context.Background(), change(base, artifact))
}

// held is a part of a script in which it says where it is, and stays there for
// as long as a file says so.
const held = `touch "%[1]s/at-%[2]s"; while test -e "%[1]s/hold-%[2]s"; do sleep 0.02; done
if test -e "%[1]s/abort-%[2]s"; then touch "%[1]s/gone-%[2]s"; exit 1; fi
`

// arrange makes the target, with a hold before it is changed and one after.
func arrange(t *testing.T, kind, dir string) {
	t.Helper()
	before, after := fmt.Sprintf(held, dir, "before"), fmt.Sprintf(held, dir, "after")
	script := func(name, text string) {
		if err := os.WriteFile(name, []byte("#!/bin/sh\nset -eu\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if kind == "exec" {
		text := strings.TrimPrefix(honest, "#!/bin/sh\nset -eu\n")
		text = strings.Replace(text, "echo run >>", before+"  echo run >>", 1)
		script(filepath.Join(dir, "program"), strings.Replace(text, "field patch > \"$state/live\" ;;", "field patch > \"$state/live\"\n"+after+";;", 1))
		return
	}
	git(t, dir, "init", "--quiet", "--bare", "--initial-branch=main", "remote")
	hooks := filepath.Join(dir, "remote", "hooks")
	if err := os.MkdirAll(hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	script(filepath.Join(hooks, "pre-receive"), before)
	script(filepath.Join(hooks, "post-receive"), after)
}

// A process that dies before its change, or after it and before it heard so, is
// followed by one that finds out what is live by asking the target, and does
// what is left to do, once.
func TestKilledBeforeAndAfterTheChange(t *testing.T) {
	for _, kind := range []string{"git", "exec"} {
		for _, moment := range []string{"before", "after"} {
			t.Run(kind+" "+moment, func(t *testing.T) { killedAt(t, kind, moment) })
		}
	}
}

func killedAt(t *testing.T, kind, moment string) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name+"-"+moment) }
	write := func(name string, content []byte) {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	arrange(t, kind, dir)
	one, two := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"})
	d, err := openKind(kind, dir)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, upgrade.None, one)
	if err := os.Remove(at("at")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "next"), two)
	write(at("hold"), nil)
	killWhen(t, kind, dir, at("at"))
	// What the dead process had started ends without its change, where that was to come.
	if moment == "before" {
		write(at("abort"), nil)
	}
	if err := os.Remove(at("hold")); err != nil {
		t.Fatal(err)
	}
	if moment == "before" {
		await(t, at("gone"))
	}
	if kind == "git" { // as git leaves it where the machine dies
		write(filepath.Join(dir, "clone", "refs", "kernelgate", "tip.lock"), nil)
	}
	if d, err = openKind(kind, dir); err != nil {
		t.Fatal(err)
	}
	want, changes := revision(one), 1
	if moment == "after" {
		want, changes = revision(two), 2
	}
	if got := live(t, d); got != want || count(t, kind, dir) != changes {
		t.Fatalf("live is %s, not %s, after %d changes", got, want, count(t, kind, dir))
	}
	if err := os.RemoveAll(at("abort")); err != nil {
		t.Fatal(err)
	}
	apply(t, d, revision(one), two)
	if n := count(t, kind, dir); n != 2 {
		t.Errorf("%d changes", n)
	}
}

// count is how often the target was changed.
func count(t *testing.T, kind, dir string) (n int) {
	t.Helper()
	if kind == "exec" {
		runs, err := os.ReadFile(filepath.Join(dir, "runs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(runs), "run\n")
	}
	if _, err := fmt.Sscan(git(t, filepath.Join(dir, "remote"), "rev-list", "--count", "main"), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// killWhen starts a process that applies the change, and kills it once the file is there.
func killWhen(t *testing.T, kind, dir, file string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashKind+"="+kind)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	await(t, file)
}

func await(t *testing.T, file string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		} else if !os.IsNotExist(err) || time.Now().After(end) {
			t.Fatalf("there is no %s: %v", file, err)
		}
	}
}
