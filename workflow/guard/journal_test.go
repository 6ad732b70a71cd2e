package guard

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/kernelgate/kernelgate/storage/auditlog"
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

// The file stays in proportion to what it holds.
func TestSnapshots(t *testing.T) {
	w := newWorld(t)
	w.deploy(w.quorum(1, upgrade.None))
	for range 9000 {
		size := w.guard.mem.last.Size
		c := change{Checkpoint: &checkpointMemory{size, w.guard.mem.last.Root}}
		w.ok(w.guard.remember(w.now, c))
	}
	if n := len(w.file()); n > 2*minGrowth {
		t.Fatalf("%d bytes", n)
	}
	want := dump(w.guard.mem)
	w.reopen()
	if dump(w.guard.mem) != want {
		t.Fatal("a snapshot is another memory")
	}
	w.ok(w.guard.Outcome(t.Context(), w.show(auditlog.UpgradeApplied, w.quorum(1, upgrade.None))))
}
