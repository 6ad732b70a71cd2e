package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"crypto/sha256"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Limits of what is unpacked to be compared: an archive may be made to exhaust
// who looks into it.
const (
	maxMembers  = 100_000
	maxUnpacked = 8 << 30 // bytes
)

var errTooLarge = errors.New("the archive unpacks to too much to be compared")

// member is one file of an archive; two that are equal do not differ.
type member struct {
	mode   fs.FileMode
	size   int64
	digest envelope.Digest
	link   string
}

// contents lists an archive's files by name, hashed. nil, without an error,
// where the file is no archive that is known.
func contents(file string) (map[string]member, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		return tarContents(z)
	case bytes.HasPrefix(head, []byte("PK")):
		return zipContents(f)
	case len(head) == 512 && string(head[257:262]) == "ustar":
		return tarContents(f)
	}
	return nil, nil //nolint:nilnil // said above
}

// collector hashes members within the limits.
type collector struct {
	members map[string]member
	left    int64
}

func (c *collector) add(name string, m member, r io.Reader) error {
	if len(c.members) == maxMembers {
		return errTooLarge
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, c.left+1))
	if err != nil {
		return err
	}
	if c.left -= n; c.left < 0 {
		return errTooLarge
	}
	m.size, m.digest = n, envelope.Digest(h.Sum(nil))
	c.members[path.Clean(name)] = m
	return nil
}

func tarContents(r io.Reader) (map[string]member, error) {
	c := collector{map[string]member{}, maxUnpacked}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return c.members, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the archive is damaged: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if err := c.add(h.Name, member{mode: h.FileInfo().Mode(), link: h.Linkname}, t); err != nil {
			return nil, err
		}
	}
}

func zipContents(f *os.File) (map[string]member, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("the archive is damaged: %w", err)
	}
	c := collector{map[string]member{}, maxUnpacked}
	for _, file := range z.File {
		if file.FileInfo().IsDir() {
			continue
		}
		if err := addZipped(&c, file); err != nil {
			return nil, err
		}
	}
	return c.members, nil
}

func addZipped(c *collector, file *zip.File) error {
	r, err := file.Open()
	if err != nil {
		return fmt.Errorf("the archive is damaged: %w", err)
	}
	return errors.Join(c.add(file.Name, member{mode: file.Mode()}, r), r.Close())
}
