package deploy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/kernelgate/kernelgate/workflow"
)

// unpack writes the files of an archive (tar.gz, tar or zip, told apart by its
// first bytes) below root, which is empty, and syncs them. It writes plain
// files and directories only; every link is refused, since a link that stays
// inside today can be led outside by the next entry, and a release that is
// copied elsewhere should hold all of its content. Modes become 0755 or 0644.
// An archive is refused with workflow.ErrUnsafeArtifact; what was written of
// it until then is left to the caller to remove.
func unpack(ctx context.Context, archive *os.File, size int64, root *os.Root, limits Limits) error {
	s := &sink{ctx: ctx, root: root, limits: limits, names: newNames(limits), left: limits.unpacked(size), archive: size}
	if err := s.read(archive, size); err != nil {
		return err
	}
	if s.files == 0 {
		return refuse("it has no files")
	}
	return s.syncDirs()
}

func (s *sink) read(archive *os.File, size int64) error {
	head := make([]byte, 512)
	n, err := archive.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return s.gzip(io.NewSectionReader(archive, 0, size))
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		// archive/zip follows offsets that a damaged file gives, negative ones too.
		return s.zip(io.NewSectionReader(archive, 0, size), size)
	case len(head) == 512 && bytes.HasPrefix(head[257:], []byte("ustar")):
		return s.tar(io.NewSectionReader(archive, 0, size))
	}
	return refuse("it is none of tar.gz, tar and zip")
}

func (s *sink) gzip(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return refuse("not a whole gzip stream: %v", err)
	}
	return s.tar(z)
}

// sink is where an archive's entries go.
type sink struct {
	ctx     context.Context
	root    *os.Root
	limits  Limits
	names   *names
	dirs    []string // made so far, parents before children
	files   int
	left    int64 // bytes that may still be written
	archive int64 // the archive's size
}

func (s *sink) dir(raw string) error {
	_, newDirs, err := s.names.add(raw, true)
	if err != nil {
		return err
	}
	return s.mkdirs(newDirs)
}

func (s *sink) mkdirs(names []string) error {
	for _, name := range names {
		if err := s.root.Mkdir(name, 0o755); err != nil {
			return err
		}
		// The process's umask may have taken bits away.
		if err := s.root.Chmod(name, 0o755); err != nil {
			return err
		}
		s.dirs = append(s.dirs, name)
	}
	return nil
}

// file writes one file of the size that the archive states.
func (s *sink) file(raw string, mode os.FileMode, size int64, content io.Reader) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if size < 0 || size > s.limits.FileBytes {
		return refuse("file %.200q has %d bytes, where at most %d are allowed", raw, size, s.limits.FileBytes)
	}
	if s.left -= size; s.left < 0 {
		return refuse("its files have more than the %d bytes allowed to an artifact of %d", s.limits.unpacked(s.archive), s.archive)
	}
	name, newDirs, err := s.names.add(raw, false)
	if err != nil {
		return err
	}
	if err := s.mkdirs(newDirs); err != nil {
		return err
	}
	s.files++
	return s.write(name, mode, size, content)
}

func (s *sink) write(name string, mode os.FileMode, size int64, content io.Reader) (err error) {
	file, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// The bound is for readers that yield more than they said.
	n, err := io.Copy(file, &contextReader{s.ctx, &bounded{content, size, fmt.Sprintf("file %.200q is longer than it states", name)}})
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case isFileError(err):
		return err
	case err != nil && !errors.Is(err, workflow.ErrUnsafeArtifact):
		return refuse("file %.200q: %v", name, err)
	case err != nil:
		return err
	case n != size:
		return refuse("file %.200q has %d bytes and states %d", name, n, size)
	}
	if err := file.Chmod(releaseMode(mode)); err != nil {
		return err
	}
	return file.Sync()
}

// isFileError tells a full disk from a broken archive: the first may pass.
func isFileError(err error) bool {
	var pathError *os.PathError
	return errors.As(err, &pathError)
}

// releaseMode keeps of a mode only whether the file is a program.
func releaseMode(mode os.FileMode) os.FileMode {
	if mode&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

// syncDirs makes the names durable, children before parents.
func (s *sink) syncDirs() error {
	for _, name := range slices.Backward(append([]string{"."}, s.dirs...)) {
		if err := syncDir(s.root, name); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
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
