// Package artifacttest is the suite that every store of artifacts passes. It
// is never linked into a program.
package artifacttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Limit is the size limit, in bytes, with which the suite's stores are opened:
// above what object storage takes in one part.
const Limit = 20 << 20

// Backend is one place where artifacts are, empty at first.
type Backend interface {
	// Open opens a store on it, as one more process would.
	Open(t *testing.T) workflow.Artifacts
	// Damage replaces an object's bytes behind the store's back.
	Damage(t *testing.T, digest envelope.Digest, content []byte)
	// Leftovers are all that the place holds, whole objects and others.
	Leftovers(t *testing.T) []string
}

// Run runs the suite; fresh makes a new place.
func Run(t *testing.T, fresh func(t *testing.T) Backend) {
	t.Run("put then open", func(t *testing.T) { putThenOpen(t, fresh(t)) })
	t.Run("open unknown", func(t *testing.T) { openUnknown(t, fresh(t)) })
	t.Run("failed put leaves nothing", func(t *testing.T) { failedPut(t, fresh) })
	t.Run("damage is seen before the last byte", func(t *testing.T) { damage(t, fresh) })
	t.Run("concurrent puts", func(t *testing.T) { concurrent(t, fresh(t)) })
}

func putThenOpen(t *testing.T, b Backend) {
	store := b.Open(t)
	contents := [][]byte{nil, []byte("x"), bytes.Repeat([]byte("kernel"), 50_000), make([]byte, Limit)}
	for _, content := range contents {
		for range 2 { // the same again is no error
			digest, size, err := store.Put(t.Context(), bytes.NewReader(content))
			if err != nil || digest != envelope.DigestOf(content) || size != int64(len(content)) {
				t.Fatalf("Put of %d bytes = %s, %d, %v", len(content), digest, size, err)
			}
		}
		r, size, err := b.Open(t).Open(t.Context(), envelope.DigestOf(content))
		if err != nil || size != int64(len(content)) {
			t.Fatalf("Open = %d, %v", size, err)
		}
		if len(content) > 1<<20 {
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
		} else if err := iotest.TestReader(r, content); err != nil {
			t.Errorf("%d bytes: %v", len(content), err)
		}
		r.Close()
	}
	if got := b.Leftovers(t); len(got) != len(contents) {
		t.Errorf("there is %v", got)
	}
}

func openUnknown(t *testing.T, b Backend) {
	if _, _, err := b.Open(t).Open(t.Context(), envelope.DigestOf([]byte("never put"))); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}

// Endless yields for ever.
type Endless struct{}

func (Endless) Read(p []byte) (int, error) { return len(p), nil }

func failedPut(t *testing.T, fresh func(t *testing.T) Backend) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("connection lost")
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want error
	}{
		"one byte too many":     {t.Context(), bytes.NewReader(make([]byte, Limit+1)), workflow.ErrArtifactTooBig},
		"endless":               {t.Context(), Endless{}, workflow.ErrArtifactTooBig},
		"reader breaks":         {t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), broken},
		"reader breaks at end":  {t.Context(), io.MultiReader(bytes.NewReader(make([]byte, Limit)), iotest.ErrReader(broken)), broken},
		"context ended before":  {canceled, strings.NewReader("x"), context.Canceled},
		"truncated by the peer": {t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			b := fresh(t)
			digest, size, err := b.Open(t).Put(c.ctx, c.r)
			if !errors.Is(err, c.want) || digest != (envelope.Digest{}) || size != 0 {
				t.Errorf("Put = %s, %d, %v", digest, size, err)
			}
			if left := b.Leftovers(t); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func damage(t *testing.T, fresh func(t *testing.T) Backend) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, change := range map[string]func([]byte) []byte{
		"bit flipped": func(b []byte) []byte { b[77] ^= 1; return b },
		"last byte":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"shorter":     func(b []byte) []byte { return b[:len(b)-1] },
		"longer":      func(b []byte) []byte { return append(b, 'x') },
		"emptied":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := fresh(t)
			store := b.Open(t)
			digest, _, err := store.Put(t.Context(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			damaged := change(bytes.Clone(content))
			b.Damage(t, digest, damaged)
			r, size, err := store.Open(t.Context(), digest)
			if err != nil {
				t.Fatal(err)
			}
			// A careless reader that asks for exactly size bytes learns it too.
			if n, err := io.ReadFull(r, make([]byte, max(size, 1))); !errors.Is(err, workflow.ErrArtifactCorrupt) || n == len(damaged) && n > 0 {
				t.Errorf("read %d of %d bytes, %v", n, len(damaged), err)
			}
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, workflow.ErrArtifactCorrupt) {
				t.Errorf("then %v", err)
			}
			r.Close()
			// The same content again repairs it.
			if _, _, err := store.Put(t.Context(), bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			if r, _, err = store.Open(t.Context(), digest); err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
				t.Errorf("not repaired: %d bytes, %v", len(got), err)
			}
		})
	}
}

func concurrent(t *testing.T, b Backend) {
	stores := []workflow.Artifacts{b.Open(t), b.Open(t)} // as two processes would
	contents := [][]byte{bytes.Repeat([]byte("a"), 90_000), bytes.Repeat([]byte("b"), 90_000)}
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
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
	all.Wait()
	if left := b.Leftovers(t); len(left) != len(contents) {
		t.Errorf("there is %v", left)
	}
}
