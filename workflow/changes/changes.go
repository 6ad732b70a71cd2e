// Package changes says what an artifact changes: it compares two archives file
// by file, in memory, for people to read before they sign. Nothing is unpacked.
package changes

import (
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Source is an artifact's bytes.
type Source struct {
	io.ReaderAt
	Size int64
}

// Limits bound what a comparison reads and keeps; an archive may be made to
// exhaust whoever looks into it.
type Limits struct {
	Bytes    int64 // that one archive unpacks to
	Entries  int   // in one archive
	TextFile int64 // of a file that is shown line by line
	Text     int64 // of all such files of one archive
}

// DefaultLimits suit a web page.
func DefaultLimits() Limits {
	return Limits{Bytes: 256 << 20, Entries: 20_000, TextFile: 128 << 10, Text: 4 << 20}
}

// Kind is what happens to a file.
type Kind string

// What may happen to a file.
const (
	Added    Kind = "added"
	Removed  Kind = "removed"
	Modified Kind = "modified"
	Mode     Kind = "mode" // only who may read, write or run it
)

// File is one file that is not the same in both.
type File struct {
	Path        string
	Kind        Kind
	Before      int64 // bytes; 0 where it was not
	After       int64
	ModeBefore  fs.FileMode
	ModeAfter   fs.FileMode
	Lines       []Line // nil: not text, or too large
	Unprintable bool   // not text
}

// Line is a line of a unified diff: Mark is ' ', '+', '-' or '@'.
type Line struct {
	Mark byte
	Text string
}

// Set is all that an artifact changes, sorted by path.
type Set struct {
	Files []File
	Same  int    // files that are equal in both
	Patch []Line // where the artifact is itself a text, such as a unified patch
	Note  string // why there is less to see than there is
}

// Compare compares what is live with what would be; base is nil where nothing
// is. The error is about next: damaged, or beyond the limits.
func Compare(base *Source, next Source, limits Limits) (*Set, error) {
	after, err := read(next, limits)
	if err != nil {
		return nil, err
	}
	if after == nil {
		return whole(next, limits)
	}
	var before map[string]member
	set := &Set{}
	if base != nil {
		if before, err = read(*base, limits); err != nil {
			set.Note = "What is live cannot be read as an archive, so every file is shown as added."
		}
	}
	for path, b := range before {
		if _, kept := after[path]; !kept {
			set.Files = append(set.Files, File{Path: path, Kind: Removed, Before: b.size, ModeBefore: b.mode}.with(b, member{}))
		}
	}
	for path, a := range after {
		b, was := before[path]
		file := File{Path: path, Before: b.size, After: a.size, ModeBefore: b.mode, ModeAfter: a.mode, Kind: Modified}
		switch {
		case !was:
			file.Kind = Added
		case a.digest == b.digest && a.link == b.link && a.mode == b.mode:
			set.Same++
			continue
		case a.digest == b.digest && a.link == b.link:
			file.Kind = Mode
		}
		set.Files = append(set.Files, file.with(b, a))
	}
	slices.SortFunc(set.Files, func(x, y File) int { return cmp.Compare(x.Path, y.Path) })
	return set, nil
}

// with adds the lines that differ.
func (f File) with(before, after member) File {
	f.Unprintable = before.binary || after.binary
	if f.Kind == Mode || f.Unprintable || before.left || after.left {
		return f
	}
	f.Lines = unified(string(before.text), string(after.text))
	return f
}

const contextLines = 3

func unified(before, after string) []Line {
	diff, err := udiff.ToUnifiedDiff("", "", before, udiff.Lines(before, after), contextLines)
	if err != nil {
		return nil // the edits are the library's own
	}
	var lines []Line
	for _, h := range diff.Hunks {
		lines = append(lines, Line{'@', "line " + line(h.FromLine) + " becomes line " + line(h.ToLine)})
		for _, l := range h.Lines {
			mark := byte(' ')
			switch l.Kind {
			case udiff.Insert:
				mark = '+'
			case udiff.Delete:
				mark = '-'
			}
			lines = append(lines, Line{mark, strings.TrimSuffix(l.Content, "\n")})
		}
	}
	return lines
}

// whole shows an artifact that is no archive: its text, a patch highlighted.
func whole(s Source, limits Limits) (*Set, error) {
	if s.Size > limits.TextFile {
		return &Set{Note: "The artifact is no archive, and too large to be shown."}, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size))
	if err != nil {
		return nil, err
	}
	if !printable(data) {
		return &Set{Note: "The artifact is neither an archive nor a text."}, nil
	}
	set := &Set{}
	for text := range strings.Lines(string(data)) {
		text = strings.TrimSuffix(text, "\n")
		mark := byte(' ')
		switch {
		case strings.HasPrefix(text, "@@"), strings.HasPrefix(text, "diff "), strings.HasPrefix(text, "+++ "), strings.HasPrefix(text, "--- "):
			mark = '@'
		case strings.HasPrefix(text, "+"), strings.HasPrefix(text, "-"):
			mark, text = text[0], text[1:]
		}
		set.Patch = append(set.Patch, Line{mark, text})
	}
	return set, nil
}

func printable(data []byte) bool {
	return !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0xFFFD })
}
