package artifact_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
)

const limit = 1 << 20

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

func TestPutThenOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, dir)
	for _, content := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("kernel"), 50_000), make([]byte, limit)} {
		digest, size, err := d.Put(t.Context(), bytes.NewReader(content))
		if err != nil || digest != envelope.DigestOf(content) || size != int64(len(content)) {
			t.Fatalf("Put of %d bytes = %s, %d, %v", len(content), digest, size, err)
		}
		r, size, err := open(t, dir).Open(t.Context(), digest)
		if err != nil || size != int64(len(content)) {
			t.Fatalf("Open = %d, %v", size, err)
		}
		if err := iotest.TestReader(r, content); err != nil {
			t.Errorf("%d bytes: %v", len(content), err)
		}
		r.Close()
	}
	if got := len(files(t, filepath.Join(dir, "incoming"))); got != 0 {
		t.Errorf("%d files left in incoming", got)
	}
}

func TestOpenUnknown(t *testing.T) {
	d := open(t, t.TempDir())
	if _, _, err := d.Open(t.Context(), envelope.DigestOf([]byte("never put"))); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}

func TestFailedPutLeavesNothing(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("connection lost")
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want error
	}{
		"one byte too many":     {t.Context(), bytes.NewReader(make([]byte, limit+1)), workflow.ErrArtifactTooBig},
		"endless":               {t.Context(), endless{}, workflow.ErrArtifactTooBig},
		"reader breaks":         {t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), broken},
		"reader breaks at end":  {t.Context(), io.MultiReader(bytes.NewReader(make([]byte, limit)), iotest.ErrReader(broken)), broken},
		"context ended before":  {canceled, strings.NewReader("x"), context.Canceled},
		"truncated by the peer": {t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			digest, size, err := open(t, dir).Put(c.ctx, c.r)
			if !errors.Is(err, c.want) || digest != (envelope.Digest{}) || size != 0 {
				t.Errorf("Put = %s, %d, %v", digest, size, err)
			}
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestDamageIsSeenBeforeTheLastByte(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, damage := range map[string]func([]byte) []byte{
		"bit flipped": func(b []byte) []byte { b[77] ^= 1; return b },
		"last byte":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"shorter":     func(b []byte) []byte { return b[:len(b)-1] },
		"longer":      func(b []byte) []byte { return append(b, 'x') },
		"emptied":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := open(t, dir)
			digest, _, err := d.Put(t.Context(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			damaged := damage(bytes.Clone(content))
			if err := os.WriteFile(objectPath(dir, digest), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			r, size, err := d.Open(t.Context(), digest)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// A careless reader that asks for exactly size bytes learns it too.
			if n, err := io.ReadFull(r, make([]byte, max(size, 1))); !errors.Is(err, workflow.ErrArtifactCorrupt) || n == len(damaged) && n > 0 {
				t.Errorf("read %d of %d bytes, %v", n, len(damaged), err)
			}
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, workflow.ErrArtifactCorrupt) {
				t.Errorf("then %v", err)
			}
			// The same content again repairs it.
			if _, _, err := d.Put(t.Context(), bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(objectPath(dir, digest)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("not repaired: %d bytes, %v", len(got), err)
			}
		})
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

func TestConcurrentPuts(t *testing.T) {
	dir := t.TempDir()
	stores := []*artifact.Dir{open(t, dir), open(t, dir)} // as two processes would
	contents := [][]byte{bytes.Repeat([]byte("a"), 90_000), bytes.Repeat([]byte("b"), 90_000)}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			content := contents[i/2%2]
			digest, _, err := stores[i%2].Put(t.Context(), iotest.HalfReader(bytes.NewReader(content)))
			if err != nil || digest != envelope.DigestOf(content) {
				t.Errorf("Put = %s, %v", digest, err)
				return
			}
			r, _, err := stores[(i+1)%2].Open(t.Context(), digest)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	// Stores opened meanwhile take nothing from the writers.
	for range 8 {
		wg.Go(func() {
			d, err := artifact.OpenDir(dir, limit)
			if err != nil {
				t.Error(err)
				return
			}
			d.Close()
		})
	}
	wg.Wait()
	if left := files(t, dir); len(left) != len(contents) {
		t.Errorf("files are %v", left)
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
			digest, _, err := d.Put(b.Context(), io.LimitReader(endless{}, size))
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
