package deploy

import (
	"fmt"
	"io"

	"github.com/kernelgate/kernelgate/workflow"
)

// Limits bound what an artifact may become when it is unpacked. An artifact
// beyond one of them is refused with workflow.ErrUnsafeArtifact.
type Limits struct {
	Entries   int   // files and directories
	Bytes     int64 // all files together; the artifact itself may not be larger either
	FileBytes int64 // one file
	PathBytes int   // one path, in UTF-8; a name in it has at most 255
	Ratio     int64 // unpacked bytes per byte of the artifact, beyond the first MiB
}

// DefaultLimits fit a large web application. Deflate cannot pack better than
// 1032 to 1; text and programs stay below 50.
func DefaultLimits() Limits {
	return Limits{Entries: 50_000, Bytes: 4 << 30, FileBytes: 1 << 30, PathBytes: 1024, Ratio: 200}
}

func (l Limits) check() error {
	if l.Entries < 1 || l.Bytes < 1 || l.FileBytes < 1 || l.PathBytes < 1 || l.Ratio < 1 {
		return fmt.Errorf("deploy: limits %+v: every one must be positive", l)
	}
	return nil
}

// unpacked is how many bytes an artifact of the given size may become.
func (l Limits) unpacked(archive int64) int64 {
	const free = 1 << 20
	if archive > (l.Bytes-free)/l.Ratio {
		return l.Bytes
	}
	return min(l.Bytes, free+archive*l.Ratio)
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{workflow.ErrUnsafeArtifact}, args...)...)
}

// bounded is a reader that fails, where io.LimitReader would end.
type bounded struct {
	r    io.Reader
	left int64
	what string
}

func (b *bounded) Read(p []byte) (int, error) {
	// One byte more than is left, to tell the end from the limit.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, refuse("%s", b.what)
	}
	return n, err
}
