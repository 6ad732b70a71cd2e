package changes

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
)

// ErrTooLarge says that an archive unpacks to more than the limits allow.
var ErrTooLarge = errors.New("the archive unpacks to too much to be compared")

// member is one file of an archive.
type member struct {
	mode   fs.FileMode
	size   int64
	digest [sha256.Size]byte
	link   string
	text   []byte // where it is text within the limits
	binary bool
	left   bool // text, or it may be, but beyond the limits
}

// reader collects members within the limits.
type reader struct {
	Limits
	members map[string]member
}

// read lists an archive's files by path; nil where it is no known archive.
func read(s Source, limits Limits) (map[string]member, error) {
	c := &reader{limits, map[string]member{}}
	head := make([]byte, 512)
	n, err := s.ReadAt(head[:min(s.Size, 512)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	stream := io.NewSectionReader(s, 0, s.Size)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(stream)
		if err != nil {
			return nil, damaged(err)
		}
		return c.members, c.tar(z)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return c.members, c.zip(stream, s.Size)
	case n == 512 && string(head[257:262]) == "ustar":
		return c.members, c.tar(stream)
	}
	return nil, nil //nolint:nilnil // said above
}

func damaged(err error) error { return fmt.Errorf("the archive is damaged: %w", err) }

func (c *reader) tar(r io.Reader) error {
	// Headers and padding count too: they cost time and no file's bytes.
	bounded := &io.LimitedReader{R: r, N: c.Bytes + int64(c.Entries)*4096}
	for t := tar.NewReader(bounded); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && bounded.N == 0 {
			return ErrTooLarge
		}
		if err != nil {
			return damaged(err)
		}
		if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := c.add(h.Name, member{mode: h.FileInfo().Mode(), link: h.Linkname}, t); err != nil {
			return err
		}
	}
}

func (c *reader) zip(r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // nothing is unpacked
		return damaged(err)
	}
	for _, file := range z.File {
		if file.FileInfo().IsDir() {
			continue
		}
		content, err := file.Open()
		if err != nil {
			return damaged(err)
		}
		if err := errors.Join(c.add(file.Name, member{mode: file.Mode()}, content), content.Close()); err != nil {
			return err
		}
	}
	return nil
}

// add hashes one file, and keeps it where it is text within the limits.
func (c *reader) add(name string, m member, r io.Reader) error {
	if len(c.members) == c.Entries {
		return ErrTooLarge
	}
	h := sha256.New()
	keep := min(c.TextFile, c.Text)
	head, err := io.ReadAll(io.TeeReader(io.LimitReader(r, keep+1), h))
	if err != nil {
		return damaged(err)
	}
	rest, err := io.Copy(h, io.LimitReader(r, c.Bytes-int64(len(head))+1))
	if err != nil {
		return damaged(err)
	}
	m.size = int64(len(head)) + rest
	if c.Bytes -= m.size; c.Bytes < 0 {
		return ErrTooLarge
	}
	h.Sum(m.digest[:0])
	// A character may be cut where the head ends.
	m.binary = !printable(head) && (rest > 0 || int64(len(head)) <= keep)
	m.left = m.size > keep
	if !m.binary && !m.left {
		m.text = head
		c.Text -= m.size
	}
	c.members[path.Clean(name)] = m
	return nil
}

func line(n int) string { return strconv.Itoa(n) }
