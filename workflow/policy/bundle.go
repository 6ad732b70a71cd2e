package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

const (
	maxFiles = 200
	maxBytes = 1 << 20 // of all files together
	dataFile = "data.json"
)

// files is a policy's files by their slash-separated path below its directory.
type files map[string][]byte

// readFiles takes *.rego and data.json. Notes (*.md), tests (*_test.rego) and
// hidden files are left out, as they decide nothing; any other file is an
// error, since its author believes that it decides something.
func readFiles(fsys fs.FS) (files, error) {
	found := files{}
	total := 0
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if name != "." && strings.HasPrefix(base, ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || strings.HasSuffix(base, "_test.rego") || strings.HasSuffix(base, ".md") {
			return nil
		}
		if name != dataFile && !strings.HasSuffix(base, ".rego") {
			return fmt.Errorf("%s is neither %s in the policy's own directory nor a .rego file; rename or remove it", name, dataFile)
		}
		content, err := readFile(fsys, name, maxBytes-total)
		total += len(content)
		found[name] = content
		if len(found) > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		return err
	})
	return found, err
}

func readFile(fsys fs.FS, name string, limit int) (content []byte, err error) {
	// Before Open, which would wait for the writer of a pipe.
	if info, err := fs.Stat(fsys, name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", name)
	}
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err = io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err == nil && len(content) > limit {
		return nil, fmt.Errorf("its files have more than %d bytes together", maxBytes)
	}
	return content, err
}

// digest is SHA-256 over the files, sorted by path (as bytes), each as
//
//	path NUL length-in-decimal NUL content
//
// with nothing between and nothing after them. The path is slash-separated and
// relative to the policy's directory.
func (f files) digest() envelope.Digest {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(hash, "%s\x00%d\x00", name, len(f[name]))
		hash.Write(f[name])
	}
	return envelope.Digest(hash.Sum(nil))
}
