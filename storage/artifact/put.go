package artifact

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Put stores what r yields. The object is replaced even where it exists
// already: the bytes are the same, unless the disk has damaged the old ones,
// and then this repairs them. Readers keep the file that they have open.
func (d *Dir) Put(ctx context.Context, r io.Reader) (envelope.Digest, int64, error) {
	file, name, err := d.create()
	if err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact store: %w", err)
	}
	digest, size, err := d.write(ctx, file, r)
	if err == nil {
		err = d.publish(name, digest)
	}
	if err != nil {
		// The first error is the one to tell; a leftover goes at the next start.
		_ = d.root.Remove(name)
	}
	// Closed last: the lock says until then that the file is in use.
	if closeErr := file.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("artifact store: %w", closeErr)
	}
	if err != nil {
		return envelope.Digest{}, 0, err
	}
	return digest, size, nil
}

// write copies r into file while hashing it, and syncs the file.
func (d *Dir) write(ctx context.Context, file *os.File, r io.Reader) (envelope.Digest, int64, error) {
	digest, size, err := copyHashed(ctx, file, r, d.maxBytes)
	if err != nil {
		return envelope.Digest{}, 0, err
	}
	if err := file.Sync(); err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact store: %w", err)
	}
	return digest, size, nil
}

// copyHashed copies at most limit bytes, hashing them.
func copyHashed(ctx context.Context, w io.Writer, r io.Reader, limit int64) (envelope.Digest, int64, error) {
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(w, hash), io.LimitReader(&contextReader{ctx, r}, limit))
	if err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact store: after %d bytes: %w", size, err)
	}
	if err := checkEnd(ctx, r, size, limit); err != nil {
		return envelope.Digest{}, 0, err
	}
	return envelope.Digest(hash.Sum(nil)), size, nil
}

// checkEnd makes sure that r ended, and not only the limit.
func checkEnd(ctx context.Context, r io.Reader, size, limit int64) error {
	if size < limit {
		return nil
	}
	switch _, err := io.ReadFull(&contextReader{ctx, r}, make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("%w of %d bytes", workflow.ErrArtifactTooBig, limit)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("artifact store: after %d bytes: %w", size, err)
	}
}

func (d *Dir) publish(name string, digest envelope.Digest) error {
	object := objectName(digest)
	if err := d.root.Rename(name, object); err != nil {
		return fmt.Errorf("artifact store: %w", err)
	}
	if err := d.syncDir(path.Dir(object)); err != nil {
		return fmt.Errorf("artifact store: %w", err)
	}
	return nil
}

// create makes a new file in incoming/, locked for as long as it is open. A
// store that is opened at that moment may take the file for a leftover before
// the lock is held; then another one is made.
func (d *Dir) create() (*os.File, string, error) {
	for {
		name := path.Join(incoming, rand.Text())
		file, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, "", err
		}
		if tryLock(file) == nil {
			if _, err := d.root.Lstat(name); err == nil {
				return file, name, nil
			}
		}
		if err := file.Close(); err != nil {
			return nil, "", err
		}
	}
}

// removeStale removes the files of writers that are gone: those that nobody
// has locked.
func (d *Dir) removeStale() error {
	entries, err := fs.ReadDir(d.root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := d.removeIfStale(path.Join(incoming, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) removeIfStale(name string) error {
	file, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its writer has just finished
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	switch err := tryLock(file); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil
	case err != nil:
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func tryLock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// contextReader ends a copy soon after its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
