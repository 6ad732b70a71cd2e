package guard

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (w *world) file() []byte { return must(os.ReadFile(w.config.MemoryPath)) }

// A crash leaves a last line that is short, or zeros: it was never answered for.
func TestTornTail(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	whole, want := w.file(), dump(w.guard.mem)
	_ = w.guard.Close()
	for name, tail := range map[string][]byte{
		"one byte": []byte("a"), "half a line": whole[len(whole)-400 : len(whole)-7], "zeros": make([]byte, 9000), "zeros and an end": append(make([]byte, 400), '\n'),
	} {
		t.Run(name, func(t *testing.T) {
			w.ok(os.WriteFile(w.config.MemoryPath, append(bytes.Clone(whole), tail...), 0o600))
			g := must(Open(w.config))
			if dump(g.mem) != want {
				t.Fatal("another memory")
			}
			w.ok(g.Close())
			if !bytes.Equal(w.file(), whole) {
				t.Fatal("the tail is still there")
			}
		})
	}
}

// Whatever else is changed is damage, and is not passed over.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	whole := w.file()
	_ = w.guard.Close()
	lines := bytes.SplitAfter(whole, []byte("\n"))
	join := func(parts ...[][]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, bytes.Join(p, nil)...)
		}
		return all
	}
	damaged := map[string][]byte{
		"a line lost":     join(lines[:3], lines[4:]),
		"the first lost":  join(lines[1:]),
		"two swapped":     join(lines[:3], lines[4:5], lines[3:4], lines[5:]),
		"a line twice":    join(lines[:4], lines[3:]),
		"empty":           nil,
		"another's words": []byte("hello\n"),
	}
	for i := range whole {
		if i%97 == 0 || i == len(whole)-2 {
			changed := bytes.Clone(whole)
			changed[i] ^= 1
			damaged[fmt.Sprintf("byte %d", i)] = changed
		}
	}
	for name, data := range damaged {
		w.ok(os.WriteFile(w.config.MemoryPath, data, 0o600))
		if g, err := Open(w.config); err == nil {
			_ = g.Close()
			t.Fatalf("%s: accepted", name)
		}
	}
	w.config.Rebuild = true // then the damaged file may be replaced
	w.open()
	w.ok(w.guard.Rebuild(t.Context(), w))
}

// slowFiles holds the writing of a snapshot back, or lets it fail.
type slowFiles struct {
	osFiles
	begun, release chan struct{}
	fail           error
}

func (f slowFiles) Open(name string, flag int) (file, error) {
	if !strings.HasSuffix(name, tempSuffix) {
		return f.osFiles.Open(name, flag)
	}
	f.begun <- struct{}{}
	<-f.release
	if f.fail != nil {
		return nil, f.fail
	}
	return f.osFiles.Open(name, flag)
}

// The file stays in proportion to what it holds. It is written anew while the
// guard goes on signing, and where that fails the old one stays the memory.
func TestSnapshots(t *testing.T) {
	for name, fail := range map[string]error{"written": nil, "failed": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ok(w.guard.Close())
			slow := slowFiles{begun: make(chan struct{}, 1), release: make(chan struct{}), fail: fail}
			w.guard = must(open(w.config, slow))
			w.guard.disk.snapshot = -2 * minGrowth
			w.deploy(w.quorum(1, upgrade.None)) // its first change is worth a snapshot
			<-slow.begun
			b := w.quorum(2, rev(1))
			record := w.deploy(b)
			w.ok(w.suspend("a5", "a5"))
			w.seal()
			before := len(w.file())
			close(slow.release)
			w.guard.snapshots.Wait()
			if after := len(w.file()); (after < before) != (fail == nil) {
				t.Fatalf("%d bytes, and then %d", before, after)
			}
			w.deploy(w.quorum(3, rev(2))) // into the new file
			want := dump(w.guard.mem)
			w.reopen()
			if dump(w.guard.mem) != want {
				t.Fatal("the file is another memory")
			}
			if again := must(w.guard.SignRecord(t.Context(), b, workflow.LogProof{})); !bytes.Equal(again.Bytes(), record.Bytes()) {
				t.Fatal("another envelope")
			}
		})
	}
}

// A change that is too long for a line is refused, and nothing is in doubt.
func TestLineTooLong(t *testing.T) {
	w := newWorld(t)
	size := len(w.file())
	long := strings.Repeat("x", maxLine)
	w.refused(failure.PayloadMalformed, w.guard.remember(w.now, change{Stale: &long}))
	if w.deploy(w.quorum(1, upgrade.None)); size >= len(w.file()) {
		t.Fatal("nothing was remembered")
	}
	w.reopen()
	w.deploy(w.quorum(2, rev(1)))
}
