package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const crashDir = "KERNELGATE_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		work := applyUntilKilled
		if kind := os.Getenv(crashKind); kind != "" {
			work = func(dir string) error { return applyOnce(kind, dir) }
		}
		if err := work(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func crashArchives(t *testing.T) (archives [2][]byte) {
	for v := range archives {
		var entries []entry
		for i := range 40 {
			entries = append(entries, entry{name: fmt.Sprintf("d%d/f%d", i%7, i), content: strings.Repeat(fmt.Sprint(v), 2000)})
		}
		archives[v] = tgz(t, entries...)
	}
	return archives
}

// applyUntilKilled goes to and fro between the two artifacts beside dir.
func applyUntilKilled(dir string) error {
	r, err := deploy.OpenRelease(dir, 0, smallLimits())
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := 0; ; i++ {
		next, err := os.ReadFile(fmt.Sprint(dir, ".artifact", i%2))
		if err != nil {
			return err
		}
		base, err := r.Live(ctx, "web")
		if err != nil {
			return err
		}
		if err := r.Apply(ctx, change(base, next)); err != nil {
			return err
		}
	}
}

// Whenever the process dies, what is live is one of the releases, whole; and
// the next process goes on.
func TestReleaseKilledAtAnyMoment(t *testing.T) {
	archives := crashArchives(t)
	whole := map[upgrade.Revision]map[string]string{}
	for _, a := range archives {
		dir := t.TempDir()
		whole[apply(t, openRelease(t, dir, 0), upgrade.None, a)] = tree(t, filepath.Join(dir, "current"))
	}
	dir := filepath.Join(t.TempDir(), "web")
	for i, a := range archives {
		if err := os.WriteFile(fmt.Sprint(dir, ".artifact", i), a, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	interrupted := 0
	for range 25 {
		killAfter(t, dir, time.Duration(20+rand.IntN(60))*time.Millisecond)
		if _, err := os.Stat(filepath.Join(dir, ".incoming")); err == nil && len(names(t, filepath.Join(dir, ".incoming"))) > 0 {
			interrupted++
		}
		r := openRelease(t, dir, 0)
		base := live(t, r)
		if base != upgrade.None {
			wantTree(t, filepath.Join(dir, "current"), whole[base])
		}
	}
	if interrupted == 0 {
		t.Error("no kill came in the middle of an Apply")
	}
	r := openRelease(t, dir, 0)
	next := archives[0]
	if live(t, r) == revision(next) {
		next = archives[1]
	}
	apply(t, r, live(t, r), next)
	wantTree(t, filepath.Join(dir, "current"), whole[revision(next)])
	wantNoLeftovers(t, dir)
}

func killAfter(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the process ended by itself: %v", err)
	}
}
