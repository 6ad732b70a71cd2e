package deploy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Release deploys archives into one root directory, of one target:
//
//	current               symlink to releases/<hex>, which is what is live
//	releases/<hex>/       one release, by the hexadecimal digits of its patchHash
//	.incoming/            what is being unpacked; removed by the next Apply
//	.lock                 held while a change is applied
//
// A release is unpacked elsewhere, synced, and only then renamed to its name;
// so what has a name is whole. A release that is there already is not trusted,
// somebody may have changed its files since: it is unpacked anew from the
// artifact's verified bytes. After any failure current is what it was, unless
// the failure came after the switch; Live tells.
type Release struct {
	root   *os.Root
	keep   int
	limits Limits
}

var _ workflow.Deployer = (*Release)(nil)

const (
	current  = "current"
	releases = "releases"
	incoming = ".incoming"
	lockFile = ".lock"
)

// OpenRelease opens the target's directory, which is made where it is missing.
// Beside the live release and the one before it, keep older ones stay.
func OpenRelease(dir string, keep int, limits Limits) (*Release, error) {
	if keep < 0 {
		return nil, fmt.Errorf("release target %s: cannot keep %d old releases; set 0 or more", dir, keep)
	}
	if err := limits.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("release target: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("release target: %w", err)
	}
	r := &Release{root: root, keep: keep, limits: limits}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("release target %s: %w", dir, err), root.Close())
	}
	return r, nil
}

func (r *Release) prepare() error {
	if err := r.root.MkdirAll(releases, 0o755); err != nil {
		return err
	}
	if err := r.root.MkdirAll(incoming, 0o700); err != nil {
		return err
	}
	if err := syncDir(r.root, "."); err != nil {
		return err
	}
	_, err := r.live()
	return err
}

// Close releases the directory.
func (r *Release) Close() error { return r.root.Close() }

// Live reads the symlink. A directory has one target, whose name is not asked.
func (r *Release) Live(ctx context.Context, _ envelope.ID) (upgrade.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return r.live()
}

// Apply unpacks the artifact and switches current to it.
func (r *Release) Apply(ctx context.Context, change workflow.Change) (err error) {
	unlock, err := lock(ctx, r.root, lockFile)
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if done, err := r.check(change); done || err != nil {
		return err
	}
	if err := r.clear(); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := r.install(ctx, change); err != nil {
		return errors.Join(fmt.Errorf("release: %w", err), r.clear())
	}
	// Unpacking takes a while, and who moves the symlink by hand takes no lock.
	if done, err := r.check(change); done || err != nil {
		return err
	}
	if err := r.activate(change.Patch); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	r.prune(change.Patch, change.Base)
	return nil
}

// check compares what is live with the change. Where the patch is live already
// it makes sure that a crash right now would not undo it.
func (r *Release) check(change workflow.Change) (done bool, err error) {
	live, err := r.live()
	if err != nil {
		return false, err
	}
	done, err = step(live, change)
	if done {
		err = syncDir(r.root, ".")
	}
	return done, err
}

// clear removes what earlier attempts left. The lock is held, so nobody works there.
func (r *Release) clear() error {
	entries, err := fs.ReadDir(r.root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := r.root.RemoveAll(path.Join(incoming, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// install makes releases/<hex> of the change's artifact.
func (r *Release) install(ctx context.Context, change workflow.Change) error {
	name := path.Join(incoming, rand.Text())
	if err := r.unpack(ctx, change, name); err != nil {
		return err
	}
	// A release of that name, which is not live, gives way as a whole.
	final := releaseDir(change.Patch)
	err := r.root.Rename(final, path.Join(incoming, rand.Text()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.root.Rename(name, final); err != nil {
		return err
	}
	return syncDir(r.root, releases)
}

func (r *Release) unpack(ctx context.Context, change workflow.Change, name string) (err error) {
	archive, err := r.root.OpenFile(name+".archive", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	size, err := spool(ctx, change, archive, r.limits.Bytes)
	if err != nil {
		return err
	}
	if err := r.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	if err := r.root.Chmod(name, 0o755); err != nil {
		return err
	}
	dir, err := r.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return unpack(ctx, archive, size, dir, r.limits)
}

func releaseDir(patch envelope.Digest) string { return path.Join(releases, patch.Hex()) }
