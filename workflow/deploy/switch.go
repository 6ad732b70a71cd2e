package deploy

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// live is what the symlink says. A symlink that this package did not make, or
// whose release is gone, is an error: nobody knows then what is live.
func (r *Release) live() (upgrade.Revision, error) {
	link, err := r.root.Readlink(current)
	if errors.Is(err, fs.ErrNotExist) {
		return upgrade.None, nil
	}
	if err != nil {
		return "", fmt.Errorf("what is live cannot be read: %w; %q must be a symlink, or absent before the first release", err, current)
	}
	hex, ok := strings.CutPrefix(link, releases+"/")
	digest, err := envelope.ParseDigest("sha256:" + hex)
	if !ok || err != nil {
		return "", fmt.Errorf("%q points to %.200q, which is no release of kernelgate's; point it to %s/<digest>, or remove it", current, link, releases)
	}
	if info, err := r.root.Lstat(link); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%q points to %s, which is not there; restore it, or remove the symlink", current, link)
	}
	return upgrade.RevisionOf(digest), nil
}

// activate switches current to the release in one step: the kernel replaces
// one name by the other, and no reader sees none.
func (r *Release) activate(patch envelope.Digest) error {
	link := path.Join(incoming, rand.Text())
	if err := r.root.Symlink(releaseDir(patch), link); err != nil {
		return err
	}
	if err := r.root.Rename(link, current); err != nil {
		return err
	}
	return syncDir(r.root, ".")
}

// prune removes old releases beyond the newest r.keep, never the live one nor
// the one before it. The change is live by now, so what cannot be removed is
// no failure of it; the next change tries again.
func (r *Release) prune(live envelope.Digest, previous upgrade.Revision) {
	type release struct {
		name    string
		renewed int64
	}
	entries, err := fs.ReadDir(r.root.FS(), releases)
	if err != nil {
		return
	}
	var old []release
	for _, entry := range entries {
		digest, err := envelope.ParseDigest("sha256:" + entry.Name())
		if err != nil || digest == live || upgrade.RevisionOf(digest) == previous {
			continue
		}
		if info, err := entry.Info(); err == nil {
			old = append(old, release{entry.Name(), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(old, func(a, b release) int {
		return cmp.Or(cmp.Compare(b.renewed, a.renewed), cmp.Compare(a.name, b.name))
	})
	for _, o := range old[min(r.keep, len(old)):] {
		// By rename first, so that no half of a release has its name.
		trash := path.Join(incoming, rand.Text())
		if r.root.Rename(path.Join(releases, o.name), trash) == nil {
			_ = r.root.RemoveAll(trash)
		}
	}
	_ = r.clear()
}
