package deploy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// A good entry comes first, so that each refusal comes in the middle of work.
func evilArchives(t testing.TB) map[string][]byte {
	good := entry{name: "good", content: "good"}
	archives := map[string][]byte{}
	for name, entries := range map[string][]entry{
		"absolute":              {{name: "/etc/passwd"}},
		"absolute after dot":    {{name: ".//etc/passwd"}},
		"parent":                {{name: "../evil"}},
		"parent inside":         {{name: "a/../../evil"}},
		"parent that stays":     {{name: "a/../evil"}},
		"parent at the end":     {{name: "a/.."}},
		"dot inside":            {{name: "a/./b"}},
		"only a dot":            {{name: "."}},
		"only a parent":         {{name: ".."}},
		"empty component":       {{name: "a//b"}},
		"backslash":             {{name: `..\evil`}},
		"control character":     {{name: "a\nb"}},
		"direction override":    {{name: "exe.\u202egpj"}},
		"zero width":            {{name: "a\u200db"}},
		"not UTF-8":             {{name: "a\xff"}},
		"long path":             {{name: strings.Repeat("ab/", 70) + "c"}},
		"long name":             {{name: strings.Repeat("x", 201)}},
		"twice":                 {{name: "good"}},
		"twice by dot":          {{name: "./good"}},
		"twice by case":         {{name: "Good"}},
		"twice by accent":       {{name: "caf\u00e9"}, {name: "cafe\u0301"}},
		"twice by sharp s":      {{name: "stra\u00dfe"}, {name: "STRASSE"}},
		"directories by case":   {{name: "Dir/a"}, {name: "dir/b"}},
		"file below a file":     {{name: "good/x"}},
		"file over a directory": {{name: "d/x"}, {name: "d"}},
		"too many entries":      manyEntries(60),
		"too many parents":      {{name: strings.Repeat("a/", 60) + "b"}},
		"file too large":        {{name: "a", content: noise(3<<20 + 1)}},
		"files too large":       {{name: "a", content: noise(3 << 20)}, {name: "b", content: noise(1<<20 + 1)}},
	} {
		entries = append([]entry{good}, entries...)
		archives["tar.gz "+name] = tgz(t, entries...)
		archives["tar "+name] = tarOf(t, entries...)
		if name != "only a dot" {
			archives["zip "+name] = zipOf(t, entries...)
		}
	}
	for name, e := range map[string]entry{
		"symlink out":       {name: "l", kind: '2', link: "/etc/passwd"},
		"symlink up":        {name: "l", kind: '2', link: "../../x"},
		"symlink inside":    {name: "l", kind: '2', link: "good"},
		"hard link inside":  {name: "l", kind: '1', link: "good"},
		"hard link out":     {name: "l", kind: '1', link: "../../../etc/passwd"},
		"character device":  {name: "l", kind: '3'},
		"block device":      {name: "l", kind: '4'},
		"fifo":              {name: "l", kind: '6'},
		"directory up":      {name: "../d/", kind: '5'},
		"directory twice":   {name: "twice/", kind: '5'},
		"directory on file": {name: "good/", kind: '5'},
		"unknown type":      {name: "l", kind: 'Z'},
	} {
		archives["tar "+name] = tarOf(t, good, entry{name: "twice/", kind: '5'}, e)
	}
	archives["zip symlink"] = zipOf(t, good, entry{name: "l", content: "/etc/passwd", mode: 0o120777})
	archives["zip device"] = zipOf(t, good, entry{name: "l", mode: 0o020666})
	archives["zip directory up"] = zipOf(t, good, entry{name: "../d/"})
	archives["zip directory twice"] = zipOf(t, good, entry{name: "d/"}, entry{name: "d/"})

	bomb := entry{name: "bomb", content: strings.Repeat("\x00", 3<<20)}
	archives["tar.gz bomb"] = tgz(t, good, bomb)
	archives["zip bomb"] = zipOf(t, good, bomb)
	archives["tar.gz of zeros"] = gz(t, append(tarOf(t, good), make([]byte, 20<<20)...))
	archives["tar.gz of headers"] = tgz(t, append([]entry{good}, manyGlobals(2000)...)...)
	broken(t, archives, good)
	return archives
}

// broken adds archives that are not whole, or more than one thing.
func broken(t testing.TB, archives map[string][]byte, good entry) {
	tgzGood, tarGood, zipGood := tgz(t, good), tarOf(t, good), zipOf(t, good)
	archives["empty"] = nil
	archives["text"] = []byte("#!/bin/sh\nrm -rf /\n")
	archives["gzip of text"] = gz(t, []byte("hello"))
	archives["gzip of gzip"] = gz(t, tgzGood)
	archives["tar.gz cut"] = tgzGood[:len(tgzGood)-5]
	archives["tar.gz with a wrong checksum"] = flip(tgzGood, len(tgzGood)-6)
	archives["tar.gz with garbage after"] = append(bytes.Clone(tgzGood), "garbage"...)
	archives["tar cut"] = tarGood[:600]
	archives["tar cut between entries"] = tarOf(t, good, good)[:1024]
	archives["tar.gz cut between entries"] = gz(t, tarOf(t, good, good)[:1024])
	archives["tar cut in content"] = tarGood[:514]
	archives["tar after tar"] = append(bytes.Clone(tarGood), tarOf(t, entry{name: "hidden"})...)
	archives["tar.gz after tar.gz"] = append(bytes.Clone(tgzGood), tgz(t, entry{name: "hidden"})...)
	archives["tar with no files"] = tarOf(t, entry{name: "d/", kind: '5'})
	archives["zip with no files"] = zipOf(t, entry{name: "d/"})
	archives["zip of nothing"] = zipOf(t)
	archives["zip cut"] = zipGood[:len(zipGood)-10]
	archives["zip with a wrong checksum"] = flip(zipGood, bytes.Index(zipGood, []byte("PK\x01\x02"))+16)
	archives["zip encrypted"] = zipFlag(zipGood, 1)
	archives["zip with a wrong size"] = zipSize(zipGood, 3)
}

func flip(data []byte, i int) []byte {
	data = bytes.Clone(data)
	data[i] ^= 0x10
	return data
}

// zipFlag sets bits of the general purpose flag in the central directory.
func zipFlag(data []byte, flag byte) []byte {
	data = bytes.Clone(data)
	data[bytes.Index(data, []byte("PK\x01\x02"))+8] |= flag
	return data
}

// zipSize sets the unpacked size in the central directory.
func zipSize(data []byte, size uint32) []byte {
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint32(data[bytes.Index(data, []byte("PK\x01\x02"))+24:], size)
	return data
}

func manyEntries(n int) (entries []entry) {
	for i := range n {
		entries = append(entries, entry{name: fmt.Sprint("file", i)})
	}
	return entries
}

func manyGlobals(n int) (entries []entry) {
	for range n {
		entries = append(entries, entry{name: "g", kind: 'g', content: strings.Repeat("c", 500)})
	}
	return entries
}

// noise is n bytes that do not pack well.
func noise(n int) string {
	b := make([]byte, n)
	state := uint64(1)
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return string(b)
}

func TestEvilArchives(t *testing.T) {
	for name, archive := range evilArchives(t) {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "web")
			r := openRelease(t, dir, 1)
			base := apply(t, r, upgrade.None, tgz(t, entry{name: "v", content: "1"}))
			want := tree(t, filepath.Join(dir, "current"))
			if err := r.Apply(t.Context(), change(base, archive)); !errors.Is(err, workflow.ErrUnsafeArtifact) {
				t.Errorf("error is %v", err)
			} else if testing.Verbose() {
				t.Log(err)
			}
			if got := live(t, r); got != base {
				t.Errorf("live is %s", got)
			}
			wantTree(t, filepath.Join(dir, "current"), want)
			wantNoLeftovers(t, dir)
			if got := names(t, filepath.Join(dir, "releases")); len(got) != 1 {
				t.Errorf("releases are %v", got)
			}
			if got := names(t, parent); len(got) != 1 {
				t.Errorf("written outside: %v", got)
			}
		})
	}
}

func FuzzRelease(f *testing.F) {
	for _, archive := range evilArchives(f) {
		if len(archive) < 10<<10 {
			f.Add(archive)
		}
	}
	f.Add(tgz(f, entry{name: "a/b", content: "x"}))
	f.Add(zipOf(f, entry{name: "a/b", content: "x"}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		parent := t.TempDir()
		r := openRelease(t, filepath.Join(parent, "web"), 1)
		err := r.Apply(t.Context(), change(upgrade.None, archive))
		if err != nil && !errors.Is(err, workflow.ErrUnsafeArtifact) {
			t.Errorf("error is %v", err)
		}
		if got := live(t, r); (got == upgrade.None) != (err != nil) {
			t.Errorf("live is %s after %v", got, err)
		}
		if got := names(t, parent); len(got) != 1 {
			t.Errorf("written outside: %v", got)
		}
	})
}
