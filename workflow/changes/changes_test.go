package changes_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kernelgate/kernelgate/workflow/changes"
)

type file struct {
	name, content string
	mode          int64
}

func source(data []byte) changes.Source {
	return changes.Source{ReaderAt: bytes.NewReader(data), Size: int64(len(data))}
}

func tarOf(t *testing.T, packed bool, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}), write(w.Write([]byte(f.content)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !packed {
		return out.Bytes()
	}
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	if err := errors.Join(write(z.Write(out.Bytes())), z.Close()); err != nil {
		t.Fatal(err)
	}
	return small.Bytes()
}

func zipOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		part, err := w.Create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(_ int, err error) error { return err }

func TestCompareFileByFile(t *testing.T) {
	before := source(tarOf(t, true, file{"./same", "s\n", 0o644}, file{"text", "one\ntwo\nthree\n", 0o644}, file{"gone", "g\n", 0o644}, file{"run", "x", 0o644}, file{"bin", "\x00\x01", 0o644}))
	after := source(tarOf(t, false, file{"same", "s\n", 0o644}, file{"text", "one\n2\nthree\n", 0o644}, file{"new", "n\n", 0o644}, file{"run", "x", 0o755}, file{"bin", "\x00\x02\x03", 0o644}))
	got, err := changes.Compare(&before, after, changes.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	want := &changes.Set{Same: 1, Files: []changes.File{
		{Path: "bin", Kind: changes.Modified, Before: 2, After: 3, ModeBefore: 0o644, ModeAfter: 0o644, Unprintable: true},
		{Path: "gone", Kind: changes.Removed, Before: 2, ModeBefore: 0o644, Lines: []changes.Line{{'@', "line 1 becomes line 1"}, {'-', "g"}}},
		{Path: "new", Kind: changes.Added, After: 2, ModeAfter: 0o644, Lines: []changes.Line{{'@', "line 1 becomes line 1"}, {'+', "n"}}},
		{Path: "run", Kind: changes.Mode, Before: 1, After: 1, ModeBefore: 0o644, ModeAfter: 0o755},
		{Path: "text", Kind: changes.Modified, Before: 14, After: 12, ModeBefore: 0o644, ModeAfter: 0o644,
			Lines: []changes.Line{{'@', "line 1 becomes line 1"}, {' ', "one"}, {'-', "two"}, {'+', "2"}, {' ', "three"}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoTar(t *testing.T) {
	zipped := zipOf(t, file{name: "a", content: "new\n"})
	set, err := changes.Compare(nil, source(zipped), changes.DefaultLimits())
	if err != nil || len(set.Files) != 1 || set.Files[0].Kind != changes.Added {
		t.Errorf("a zip upon nothing: %+v, %v", set, err)
	}
	set, err = changes.Compare(nil, source([]byte("--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z\n")), changes.DefaultLimits())
	if err != nil || len(set.Patch) != 6 || set.Patch[4] != (changes.Line{'+', "y"}) || set.Patch[0].Mark != '@' {
		t.Errorf("a patch: %+v, %v", set, err)
	}
	for name, data := range map[string][]byte{"binary": {0, 1, 2}, "long text": bytes.Repeat([]byte("a\n"), 1<<20)} {
		if set, err := changes.Compare(nil, source(data), changes.DefaultLimits()); err != nil || set.Note == "" {
			t.Errorf("%s: %+v, %v", name, set, err)
		}
	}
}

func TestLimitsAndDamage(t *testing.T) {
	limits := changes.Limits{Bytes: 1000, Entries: 2, TextFile: 10, Text: 15}
	large := strings.Repeat("a", 2000)
	for name, data := range map[string][]byte{
		"too many bytes":   tarOf(t, true, file{"a", large, 0o644}),
		"too many in zip":  zipOf(t, file{name: "a", content: large}),
		"too many entries": tarOf(t, true, file{"a", "", 0o644}, file{"b", "", 0o644}, file{"c", "", 0o644}),
	} {
		if _, err := changes.Compare(nil, source(data), limits); !errors.Is(err, changes.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := tarOf(t, true, file{"a", large, 0o644})
	if _, err := changes.Compare(nil, source(whole[:len(whole)-20]), changes.DefaultLimits()); err == nil {
		t.Error("a cut archive was compared")
	}
	set, err := changes.Compare(nil, source(tarOf(t, true, file{"a", "0123456789", 0o644}, file{"b", "0123456789", 0o644})), limits)
	if err != nil || set.Files[0].Lines == nil || set.Files[1].Lines != nil || set.Files[1].Unprintable {
		t.Errorf("text beyond the budget: %+v, %v", set, err)
	}
}
