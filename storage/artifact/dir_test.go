package artifact_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/storage/artifact/artifacttest"
	"github.com/kernelgate/kernelgate/workflow"
)

const limit = artifacttest.Limit

func open(t *testing.T, dir string) *artifact.Dir {
	t.Helper()
	d, err := artifact.OpenDir(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// files lists the plain files below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func objectPath(dir string, d envelope.Digest) string {
	return filepath.Join(dir, "objects", d.Hex()[:2], d.Hex()[2:])
}

// dir is a directory as the suite's place.
type dir string

func (d dir) Open(t *testing.T) workflow.Artifacts { return open(t, string(d)) }

func (d dir) Damage(t *testing.T, digest envelope.Digest, content []byte) {
	if err := os.WriteFile(objectPath(string(d), digest), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d dir) Leftovers(t *testing.T) []string { return files(t, string(d)) }

func TestDir(t *testing.T) {
	artifacttest.Run(t, func(t *testing.T) artifacttest.Backend { return dir(filepath.Join(t.TempDir(), "a", "b")) })
}

// Stores that are opened while others write take nothing from the writers.
func TestOpenWhileOthersPut(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, _, err := d.Put(t.Context(), iotest.HalfReader(bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 90_000)))); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			again, err := artifact.OpenDir(dir, limit)
			if err != nil {
				t.Error(err)
				return
			}
			again.Close()
		})
	}
	all.Wait()
	if left := files(t, dir); len(left) != 8 {
		t.Errorf("files are %v", left)
	}
}

func TestObjectIsNotFollowedOutside(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	digest := envelope.DigestOf([]byte("secret"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, objectPath(dir, digest)); err != nil {
		t.Fatal(err)
	}
	if r, _, err := d.Open(t.Context(), digest); err == nil {
		r.Close()
		t.Error("a link out of the store was opened")
	}
}

func TestOpenRemovesOnlyWhatNobodyWrites(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { _, _, err := d.Put(t.Context(), pr); done <- err }()
	if _, err := pw.Write([]byte("first half, ")); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "incoming", "left-by-a-crash")
	if err := os.WriteFile(stale, []byte("half of something"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if _, err := pw.Write([]byte("second half")); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Fatalf("the running Put failed: %v", err)
	}
	r, _, err := again.Open(t.Context(), envelope.DigestOf([]byte("first half, second half")))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestOpenDirRefuses(t *testing.T) {
	if _, err := artifact.OpenDir(t.TempDir(), 0); err == nil {
		t.Error("a limit of 0 was accepted")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.OpenDir(file, limit); err == nil {
		t.Error("a file was accepted as the directory")
	}
}

// Memory does not grow with the artifact.
func TestConstantMemory(t *testing.T) {
	const size = 64 << 20
	d, err := artifact.OpenDir(t.TempDir(), size)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			digest, _, err := d.Put(b.Context(), io.LimitReader(artifacttest.Endless{}, size))
			if err != nil {
				b.Fatal(err)
			}
			r, _, err := d.Open(b.Context(), digest)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
			r.Close()
		}
	})
	if got := result.AllocedBytesPerOp(); got > 1<<20 {
		t.Errorf("%d bytes allocated for one artifact of %d", got, size)
	}
}
