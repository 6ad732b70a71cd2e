package deploy

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/kernelgate/kernelgate/workflow"
)

// tar unpacks a tar stream, uncompressed by now. The stream as a whole is
// bounded too: headers and padding cost time and no file's bytes.
func (s *sink) tar(r io.Reader) error {
	const perEntry = 4096 // header, padding, and a PAX header of a long name
	stream := &zeroTail{r: &bounded{r, s.left + int64(s.limits.Entries+16)*perEntry, "it unpacks to more bytes than its size and number of entries allow"}}
	t := tar.NewReader(&contextReader{s.ctx, stream})
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return s.tarEnd(stream)
		}
		if err != nil {
			return s.broken("tar", err)
		}
		if err := s.tarEntry(header, t); err != nil {
			return err
		}
	}
}

func (s *sink) tarEntry(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg:
		return s.file(h.Name, h.FileInfo().Mode(), h.Size, content)
	case tar.TypeDir:
		return s.dir(h.Name)
	case tar.TypeXGlobalHeader:
		return nil // git archive's note of the commit
	case tar.TypeSymlink, tar.TypeLink:
		return refuse("%.200q is a link; pack the content itself (tar --dereference --hard-dereference)", h.Name)
	}
	return refuse("%.200q is a device or something else that is neither a file nor a directory (tar type %q)", h.Name, h.Typeflag)
}

// tarEnd requires the end mark, without which the archive may be cut between
// two entries, and only zeros after it: another tool might read on there, and
// show people something else than what is deployed.
func (s *sink) tarEnd(r *zeroTail) error {
	const endMark = 2 * 512
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		for _, b := range buffer[:n] {
			if b != 0 {
				return refuse("there is content after the end of the tar archive")
			}
		}
		if errors.Is(err, io.EOF) && r.zeros < endMark {
			return refuse("not a whole tar archive: its end is missing")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.broken("tar", err)
		}
	}
}

// zeroTail counts the zero bytes at the end of what was read.
type zeroTail struct {
	r     io.Reader
	zeros int
}

func (z *zeroTail) Read(p []byte) (int, error) {
	n, err := z.r.Read(p)
	if tail := n - len(bytes.TrimRight(p[:n], "\x00")); tail < n {
		z.zeros = tail
	} else {
		z.zeros += n
	}
	return n, err
}

// zip unpacks a zip file by its central directory.
func (s *sink) zip(r io.ReaderAt, size int64) error {
	// archive/zip reads the whole directory into memory.
	const perEntry = 512
	directory := &boundedAt{r, int64(s.limits.Entries+256) * perEntry, true}
	z, err := zip.NewReader(directory, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // paths are judged by names
		return s.broken("zip", err)
	}
	directory.counting = false
	for _, file := range z.File {
		if err := s.zipEntry(file); err != nil {
			return err
		}
	}
	return nil
}

func (s *sink) zipEntry(f *zip.File) error {
	const encrypted = 1
	mode := f.Mode()
	switch {
	case f.Flags&encrypted != 0:
		return refuse("%.200q is encrypted", f.Name)
	case mode&os.ModeSymlink != 0:
		return refuse("%.200q is a link; pack the content itself", f.Name)
	case mode.IsDir():
		return s.dir(f.Name)
	case !mode.IsRegular():
		return refuse("%.200q is a device or something else that is neither a file nor a directory", f.Name)
	case f.UncompressedSize64 > uint64(s.limits.FileBytes):
		return refuse("file %.200q has %d bytes, where at most %d are allowed", f.Name, f.UncompressedSize64, s.limits.FileBytes)
	}
	content, err := f.Open()
	if err != nil {
		return s.broken("zip", err)
	}
	defer content.Close()
	return s.file(f.Name, mode, int64(f.UncompressedSize64), content)
}

// broken is what an archive's reader said, as the verdict that the artifact
// can never be deployed; but a context that ended says nothing of it.
func (s *sink) broken(kind string, err error) error {
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	if errors.Is(err, workflow.ErrUnsafeArtifact) || isFileError(err) {
		return err
	}
	return refuse("not a whole %s archive: %v", kind, err)
}

// boundedAt bounds how much is read while it counts.
type boundedAt struct {
	r        io.ReaderAt
	left     int64
	counting bool
}

func (b *boundedAt) ReadAt(p []byte, off int64) (int, error) {
	if b.counting {
		if b.left -= int64(len(p)); b.left < 0 {
			return 0, refuse("its zip directory is larger than the number of entries allows")
		}
	}
	return b.r.ReadAt(p, off)
}
