// Package artifact stores artifacts by their SHA-256. It implements
// workflow.Artifacts on a directory (Dir) and on object storage (Blob), and
// both pass one suite, artifacttest. A directory looks so:
//
//	objects/ab/cdef...   one plain file per artifact, 2 + 62 hexadecimal digits of its digest
//	incoming/            what is still being written, one locked file per Put
//
// A file gets its name in objects/ only once it is whole and synced, so an
// object that has a name is complete, whatever crashed. Any number of
// processes may use one directory on a local file system.
package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	objects  = "objects"
	incoming = "incoming"
)

// Dir is a store on a directory. It is safe for concurrent use.
type Dir struct {
	root     *os.Root
	maxBytes int64
}

var _ workflow.Artifacts = (*Dir)(nil)

// OpenDir opens the store in dir, which is made where it is missing, and
// removes what interrupted writers left. An artifact may have at most maxBytes
// bytes, which must be positive.
func OpenDir(dir string, maxBytes int64) (*Dir, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("artifact store: the size limit is %d bytes; set a positive one", maxBytes)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	d := &Dir{root: root, maxBytes: maxBytes}
	if err := d.prepare(filepath.Dir(dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("artifact store %s: %w", dir, err), root.Close())
	}
	return d, nil
}

// prepare makes every directory of the layout and syncs them, so that a Put
// has one directory to sync and no race to make it.
func (d *Dir) prepare(parent string) error {
	for _, name := range []string{objects, incoming} {
		if err := d.root.MkdirAll(name, 0o700); err != nil {
			return err
		}
	}
	for i := range 256 {
		if err := d.root.MkdirAll(path.Join(objects, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{objects, "."} {
		if err := d.syncDir(name); err != nil {
			return err
		}
	}
	if err := syncPath(parent); err != nil {
		return err
	}
	return d.removeStale()
}

// Close releases the directory. Readers that are open stay usable.
func (d *Dir) Close() error { return d.root.Close() }

// Open opens an artifact. The last bytes are handed out only if all of them
// are the digest's; otherwise the read fails with workflow.ErrArtifactCorrupt.
// workflow.ErrNotFound where there is no such artifact.
func (d *Dir) Open(ctx context.Context, digest envelope.Digest) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	file, err := d.root.Open(objectName(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("artifact %s: %w", digest, workflow.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("artifact %s: %w", digest, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: its object is not a plain file", workflow.ErrArtifactCorrupt)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("artifact %s: %w", digest, err), file.Close())
	}
	return newVerified(file, info.Size(), digest), info.Size(), nil
}

func objectName(digest envelope.Digest) string {
	hex := digest.Hex()
	return path.Join(objects, hex[:2], hex[2:])
}

// syncDir makes the names in a directory durable.
func (d *Dir) syncDir(name string) error {
	dir, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func syncPath(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
