package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func smallLimits() deploy.Limits {
	return deploy.Limits{Entries: 50, Bytes: 4 << 20, FileBytes: 3 << 20, PathBytes: 200, Ratio: 20}
}

func openRelease(t testing.TB, dir string, keep int) *deploy.Release {
	t.Helper()
	r, err := deploy.OpenRelease(dir, keep, smallLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func revision(archive []byte) upgrade.Revision { return upgrade.RevisionOf(envelope.DigestOf(archive)) }

// change is from base to the archive's digest.
func change(base upgrade.Revision, archive []byte) workflow.Change {
	return workflow.Change{
		UpgradeID: "0b6bc2a4-0a3d-4d0a-9d5a-3f5f6f3c2a10",
		Target:    upgrade.Target{Name: "web", ManifestID: "web"},
		Base:      base,
		Patch:     envelope.DigestOf(archive),
		Record:    []byte(`{"payload":""}`),
		Artifact: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(archive)), nil
		},
	}
}

func live(t testing.TB, d workflow.Deployer) upgrade.Revision {
	t.Helper()
	r, err := d.Live(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func apply(t testing.TB, d workflow.Deployer, base upgrade.Revision, archive []byte) upgrade.Revision {
	t.Helper()
	if err := d.Apply(t.Context(), change(base, archive)); err != nil {
		t.Fatal(err)
	}
	if got := live(t, d); got != revision(archive) {
		t.Fatalf("live is %s, not %s", got, revision(archive))
	}
	return revision(archive)
}

// tree is the files below dir, by path, with content and mode.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := e.Info()
		rel, _ := filepath.Rel(dir, name)
		files[rel] = fmt.Sprintf("%s %s", info.Mode(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantTree(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	if got := tree(t, dir); !maps.Equal(got, want) {
		t.Errorf("files are %q, not %q", got, want)
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantNoLeftovers(t testing.TB, dir string) {
	t.Helper()
	if left := names(t, filepath.Join(dir, ".incoming")); len(left) != 0 {
		t.Errorf("left in .incoming: %v", left)
	}
}

func TestReleaseFormats(t *testing.T) {
	entries := []entry{
		{name: "./", kind: '5'},
		{name: "pax_global_header", kind: 'g', content: "a commit"},
		{name: "./index.html", content: "<h1>"},
		{name: "bin/", kind: '5', mode: 0o700},
		{name: "bin/run", content: "#!/bin/sh", mode: 0o6755},
		{name: "a/b/größe.txt", content: "", mode: 0o600},
		{name: "a/", kind: '5'},
		{name: "large", content: strings.Repeat("x", 1<<20), mode: 0o666},
	}
	want := map[string]string{
		"index.html": "-rw-r--r-- <h1>", "bin/run": "-rwxr-xr-x #!/bin/sh", "a/b/größe.txt": "-rw-r--r-- ",
		"large": "-rw-r--r-- " + strings.Repeat("x", 1<<20),
	}
	for name, archive := range map[string][]byte{
		"tar.gz": tgz(t, entries...),
		"tar":    tarOf(t, entries...),
		"zip": zipOf(t, entry{name: "index.html", content: "<h1>"}, entry{name: "bin/"}, entry{name: "bin/run", content: "#!/bin/sh", mode: 0o106755},
			entry{name: "a/b/größe.txt"}, entry{name: "large", content: entries[7].content}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "web")
			r := openRelease(t, dir, 1)
			if got := live(t, r); got != upgrade.None {
				t.Fatalf("live before the first release is %s", got)
			}
			apply(t, r, upgrade.None, archive)
			wantTree(t, filepath.Join(dir, "current"), want)
			wantNoLeftovers(t, dir)
			for _, d := range []string{"", "a", "a/b", "bin"} {
				info, err := os.Stat(filepath.Join(dir, "current", d))
				if err != nil || info.Mode().Perm() != 0o755 {
					t.Errorf("directory %q: %v %v", d, info.Mode(), err)
				}
			}
		})
	}
}

func TestReleaseCompareAndSwap(t *testing.T) {
	dir := t.TempDir()
	r := openRelease(t, dir, 5)
	one, two, three := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"}), tgz(t, entry{name: "v", content: "3"})
	apply(t, r, upgrade.None, one)
	apply(t, r, revision(one), two)

	for _, base := range []upgrade.Revision{upgrade.None, revision(one)} {
		if err := r.Apply(t.Context(), change(base, three)); !errors.Is(err, workflow.ErrBaseMoved) {
			t.Errorf("from %s: %v", base, err)
		}
	}
	// The same change again does nothing, and asks for no artifact.
	again := change(revision(one), two)
	again.Artifact = func(context.Context) (io.ReadCloser, error) {
		t.Error("artifact opened")
		return nil, workflow.ErrNotFound
	}
	if err := r.Apply(t.Context(), again); err != nil {
		t.Error(err)
	}
	if got := live(t, r); got != revision(two) {
		t.Errorf("live is %s", got)
	}
	// A rollback is a change to the release before.
	apply(t, r, revision(two), one)
	wantTree(t, filepath.Join(dir, "current"), map[string]string{"v": "-rw-r--r-- 1"})
	// Another process sees the same.
	if got := live(t, openRelease(t, dir, 5)); got != revision(one) {
		t.Errorf("live is %s", got)
	}
}

// Content that somebody changed on disk is not what was approved.
func TestReleaseDoesNotTrustWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	r := openRelease(t, dir, 5)
	one, two := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"})
	apply(t, r, upgrade.None, one)
	apply(t, r, revision(one), two)
	old := filepath.Join(dir, "releases", envelope.DigestOf(one).Hex())
	if err := os.WriteFile(filepath.Join(old, "v"), []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "extra"), []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, r, revision(two), one)
	wantTree(t, filepath.Join(dir, "current"), map[string]string{"v": "-rw-r--r-- 1"})
}

func TestReleasePrunes(t *testing.T) {
	dir := t.TempDir()
	r := openRelease(t, dir, 1)
	base := upgrade.None
	var hexes []string
	for i := range 6 {
		archive := tgz(t, entry{name: "v", content: fmt.Sprint(i)})
		base = apply(t, r, base, archive)
		hexes = append(hexes, envelope.DigestOf(archive).Hex())
		time.Sleep(5 * time.Millisecond) // the order of directories is by their times
	}
	if err := os.Mkdir(filepath.Join(dir, "releases", "not-ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Back to a release that is gone: it comes from its artifact.
	zero := tgz(t, entry{name: "v", content: "0"})
	apply(t, r, base, zero)
	want := []string{hexes[0], hexes[5], hexes[4], "not-ours"} // live, previous, one older; what is not ours stays
	slices.Sort(want)
	if got := names(t, filepath.Join(dir, "releases")); !slices.Equal(got, want) {
		t.Errorf("releases are %v, not %v", got, want)
	}
}

// After any failure current points to what it did, and the next try succeeds.
func TestReleaseFailureChangesNothing(t *testing.T) {
	one, two := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"}, entry{name: "w", content: "3"})
	lost := errors.New("store is away")
	for name, c := range map[string]struct {
		artifact func(context.CancelFunc) (io.ReadCloser, error)
		want     error
	}{
		"no artifact":    {func(context.CancelFunc) (io.ReadCloser, error) { return nil, workflow.ErrNotFound }, workflow.ErrNotFound},
		"store breaks":   {reading(io.MultiReader(bytes.NewReader(two[:40]), iotest.ErrReader(lost))), lost},
		"corrupt":        {reading(io.MultiReader(bytes.NewReader(two[:40]), iotest.ErrReader(workflow.ErrArtifactCorrupt))), workflow.ErrArtifactCorrupt},
		"truncated":      {reading(bytes.NewReader(two[:len(two)-1])), workflow.ErrArtifactCorrupt},
		"something else": {reading(bytes.NewReader(one)), workflow.ErrArtifactCorrupt},
		"longer":         {reading(io.MultiReader(bytes.NewReader(two), strings.NewReader("\x00"))), workflow.ErrArtifactCorrupt},
		"endless":        {reading(zeros{}), workflow.ErrUnsafeArtifact},
		"canceled": {func(cancel context.CancelFunc) (io.ReadCloser, error) {
			cancel()
			return io.NopCloser(bytes.NewReader(two)), nil
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := openRelease(t, dir, 1)
			apply(t, r, upgrade.None, one)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			bad := change(revision(one), two)
			bad.Artifact = func(context.Context) (io.ReadCloser, error) { return c.artifact(cancel) }
			if err := r.Apply(ctx, bad); !errors.Is(err, c.want) {
				t.Errorf("error is %v, not %v", err, c.want)
			}
			wantTree(t, filepath.Join(dir, "current"), map[string]string{"v": "-rw-r--r-- 1"})
			wantNoLeftovers(t, dir)
			if got := names(t, filepath.Join(dir, "releases")); len(got) != 1 {
				t.Errorf("releases are %v", got)
			}
			apply(t, r, revision(one), two)
		})
	}
}

func reading(r io.Reader) func(context.CancelFunc) (io.ReadCloser, error) {
	return func(context.CancelFunc) (io.ReadCloser, error) { return io.NopCloser(r), nil }
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReleaseObstacles(t *testing.T) {
	archive := tgz(t, entry{name: "v", content: "1"})
	hex := envelope.DigestOf(archive).Hex()
	for name, obstruct := range map[string]func(dir string) error{
		"current is a directory":     func(dir string) error { return os.Mkdir(filepath.Join(dir, "current"), 0o755) },
		"current is a file":          func(dir string) error { return os.WriteFile(filepath.Join(dir, "current"), nil, 0o644) },
		"current leads elsewhere":    func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "current")) },
		"current leads to no digest": func(dir string) error { return os.Symlink("releases/v1", filepath.Join(dir, "current")) },
		"current leads up":           func(dir string) error { return os.Symlink("releases/../releases/"+hex, filepath.Join(dir, "current")) },
		"the live release is gone":   func(dir string) error { return os.Symlink("releases/"+hex, filepath.Join(dir, "current")) },
		"the live release is a file": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "releases", hex), nil, 0o644), os.Symlink("releases/"+hex, filepath.Join(dir, "current")))
		},
		"the live release is a link": func(dir string) error {
			return errors.Join(os.Symlink("/etc", filepath.Join(dir, "releases", hex)), os.Symlink("releases/"+hex, filepath.Join(dir, "current")))
		},
		"releases leads out of target": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "releases")), os.Symlink("/tmp", filepath.Join(dir, "releases")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := openRelease(t, dir, 1)
			if err := obstruct(dir); err != nil {
				t.Fatal(err)
			}
			before := names(t, dir)
			other := tgz(t, entry{name: "v", content: "2"})
			if err := r.Apply(t.Context(), change(upgrade.None, other)); err == nil {
				t.Error("applied")
			}
			if got := names(t, dir); !slices.Equal(slices.DeleteFunc(got, func(n string) bool { return n == ".lock" }), before) {
				t.Errorf("directory is %v, was %v", got, before)
			}
		})
	}
}

// Many changes from one base: one wins, the others learn that the base moved.
func TestReleaseConcurrentApplies(t *testing.T) {
	dir := t.TempDir()
	base := tgz(t, entry{name: "v", content: "base"})
	apply(t, openRelease(t, dir, 9), upgrade.None, base)
	var wg sync.WaitGroup
	var won, moved atomic.Int32
	for i := range 12 {
		r := openRelease(t, dir, 9) // each as a process of its own
		archive := tgz(t, entry{name: "v", content: fmt.Sprint(i / 2)})
		wg.Go(func() {
			switch err := r.Apply(t.Context(), change(revision(base), archive)); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, workflow.ErrBaseMoved):
				moved.Add(1)
			default:
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := r.Live(t.Context(), "web"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Two asked for the same change; both are told that it is done.
	if won.Load() != 2 || moved.Load() != 10 {
		t.Errorf("%d won, %d moved", won.Load(), moved.Load())
	}
	wantNoLeftovers(t, dir)
}

func TestReleaseWaitsForTheLockUntilTheContextEnds(t *testing.T) {
	dir := t.TempDir()
	one, two := tgz(t, entry{name: "v", content: "1"}), tgz(t, entry{name: "v", content: "2"})
	r := openRelease(t, dir, 1)
	pr, pw := io.Pipe()
	slow := change(upgrade.None, one)
	slow.Artifact = func(context.Context) (io.ReadCloser, error) { return pr, nil }
	done := make(chan error, 1)
	go func() { done <- r.Apply(t.Context(), slow) }()
	if _, err := pw.Write(one[:10]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := openRelease(t, dir, 1).Apply(ctx, change(upgrade.None, two)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if _, err := pw.Write(one[10:]); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := live(t, r); got != revision(one) {
		t.Errorf("live is %s", got)
	}
}

func TestOpenReleaseRefuses(t *testing.T) {
	if _, err := deploy.OpenRelease(t.TempDir(), -1, smallLimits()); err == nil {
		t.Error("-1 old releases accepted")
	}
	if _, err := deploy.OpenRelease(t.TempDir(), 1, deploy.Limits{}); err == nil {
		t.Error("limits of zero accepted")
	}
	if r, err := deploy.OpenRelease(t.TempDir(), 0, deploy.DefaultLimits()); err != nil {
		t.Error(err)
	} else {
		r.Close()
	}
}

func TestSet(t *testing.T) {
	web, api := openRelease(t, t.TempDir(), 1), openRelease(t, t.TempDir(), 1)
	set := deploy.Set{"web": web, "api": api}
	archive := tgz(t, entry{name: "v", content: "1"})
	apply(t, set, upgrade.None, archive)
	if got := live(t, api); got != upgrade.None {
		t.Errorf("api is at %s", got)
	}
	if _, err := set.Live(t.Context(), "db"); !errors.Is(err, workflow.ErrUnknownTarget) {
		t.Errorf("error is %v", err)
	}
	unknown := change(upgrade.None, archive)
	unknown.Target.Name = "db"
	if err := set.Apply(t.Context(), unknown); !errors.Is(err, workflow.ErrUnknownTarget) {
		t.Errorf("error is %v", err)
	}
}
