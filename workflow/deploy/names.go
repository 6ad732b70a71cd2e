package deploy

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const maxNameBytes = 255

// names is the tree of names that an archive has made so far. It refuses every
// name that one file system reads otherwise than another: the unpacked release
// is what the approvers saw, whatever system shows it.
type names struct {
	limits Limits
	exact  map[string]bool   // every path so far; true where it is a directory
	listed map[string]bool   // directories that the archive lists itself
	folded map[string]string // the path that a path is without regard to case
	fold   cases.Caser
}

func newNames(limits Limits) *names {
	return &names{
		limits: limits,
		exact:  map[string]bool{},
		listed: map[string]bool{},
		folded: map[string]string{},
		fold:   cases.Fold(),
	}
}

// add takes the next name of an archive. It returns the path, and the
// directories that are to be made for it, outermost first. The path is "" for
// the archive's own root ("./"), for which there is nothing to make.
func (n *names) add(raw string, dir bool) (path string, newDirs []string, err error) {
	path, err = n.clean(raw, dir)
	if err != nil || path == "" {
		return "", nil, err
	}
	for i, c := range path {
		if c != '/' {
			continue
		}
		if newDirs, err = n.putDir(path[:i], newDirs); err != nil {
			return "", nil, err
		}
	}
	if !dir {
		isNew, err := n.put(path, false)
		if err == nil && !isNew {
			err = refuse("it has %q twice", path)
		}
		return path, newDirs, err
	}
	if n.listed[path] {
		return "", nil, refuse("it has %q twice", path)
	}
	n.listed[path] = true
	newDirs, err = n.putDir(path, newDirs)
	return path, newDirs, err
}

// putDir records a directory, and appends it to newDirs where it is new.
func (n *names) putDir(path string, newDirs []string) ([]string, error) {
	isNew, err := n.put(path, true)
	if isNew {
		newDirs = append(newDirs, path)
	}
	return newDirs, err
}

// put records one path and says whether it is new.
func (n *names) put(path string, dir bool) (bool, error) {
	if wasDir, ok := n.exact[path]; ok {
		if wasDir != dir {
			return false, refuse("%q is both a file and a directory", path)
		}
		return false, nil
	}
	key := norm.NFC.String(n.fold.String(norm.NFC.String(path)))
	if other, ok := n.folded[key]; ok {
		return false, refuse("%q and %q differ by case or accents' encoding only", other, path)
	}
	if len(n.exact) >= n.limits.Entries {
		return false, refuse("it has more than %d files and directories", n.limits.Entries)
	}
	n.exact[path] = dir
	n.folded[key] = path
	return true, nil
}

// clean checks the form of a name, and cuts "./" before it and, of a
// directory, "/" after it.
func (n *names) clean(raw string, dir bool) (string, error) {
	if len(raw) > n.limits.PathBytes {
		return "", refuse("a path has %d bytes, where at most %d are allowed: %.60q...", len(raw), n.limits.PathBytes, raw)
	}
	if !utf8.ValidString(raw) {
		return "", refuse("path %q is not UTF-8", raw)
	}
	for _, r := range raw {
		if r == '\\' || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return "", refuse("path %q contains the character U+%04X", raw, r)
		}
	}
	path := raw
	if dir {
		path = strings.TrimSuffix(path, "/")
		if path == "." {
			return "", nil
		}
	}
	path = strings.TrimPrefix(path, "./")
	if strings.HasPrefix(path, "/") {
		return "", refuse("path %q is absolute", raw)
	}
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "..":
			return "", refuse("path %q leads out of the release", raw)
		case name == "" || name == ".":
			return "", refuse("path %q is not in its simplest form", raw)
		case len(name) > maxNameBytes:
			return "", refuse("a name in path %.60q... has more than %d bytes", raw, maxNameBytes)
		}
	}
	return path, nil
}
