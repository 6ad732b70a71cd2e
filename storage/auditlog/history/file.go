package history

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// MediaType names the export file's format and version. The file is JSON
// Lines, each line in RFC 8785 form and ended by a newline: a Header, then the
// leaves in order, each as it stands in the tree.
const MediaType = "application/vnd.kernelgate.audit-log.v1+jsonl"

// MaxHeader bounds the header line, in bytes: room for the registry's history.
const MaxHeader = 64 << 20

// Header is an export file's first line.
type Header struct {
	Checkpoint string                       `json:"checkpoint"` // the signed note over the leaves
	KernelID   envelope.ID                  `json:"kernelId"`
	MediaType  string                       `json:"mediaType"`
	Registry   []keyregistry.SignedDocument `json:"registry"` // version 1 first
	Size       int64                        `json:"size"`     // how many leaves follow
}

// NewHeader is the header of a log under this checkpoint, whose signatures are
// not verified here.
func NewHeader(kernelID envelope.ID, registry []keyregistry.SignedDocument, checkpoint string) (Header, error) {
	c, err := auditlog.ReadCheckpoint(checkpoint)
	if err != nil {
		return Header{}, err
	}
	return Header{checkpoint, kernelID, MediaType, registry, c.Size}, nil
}

// Write writes an export file. It does not judge the leaves, but refuses too
// few or too many; reading the file back does the rest.
func Write(w io.Writer, h Header, leaves iter.Seq2[[]byte, error]) error {
	head, err := envelope.Canonical(h)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	writeLine(out, head)
	var count int64
	for leaf, err := range leaves {
		if err != nil {
			return err
		}
		if bytes.IndexByte(leaf, '\n') >= 0 || len(leaf) > auditlog.MaxLeaf {
			return &RowError{count, failure.New(failure.PayloadNotCanonical, "event %d: it is not one line of canonical JSON", count)}
		}
		writeLine(out, leaf)
		count++
	}
	if count != h.Size {
		return fmt.Errorf("the log gave %d events, not the %d of its checkpoint", count, h.Size)
	}
	return out.Flush()
}

// writeLine leaves errors to Flush, which reports the first.
func writeLine(w *bufio.Writer, line []byte) {
	_, _ = w.Write(line)
	_ = w.WriteByte('\n')
}

// VerifyFile judges an export file from its bytes. An error of r itself has no
// failure class, and is no verdict.
func VerifyFile(ctx context.Context, trust Trust, r io.Reader) (*Verdict, error) {
	lines := bufio.NewReaderSize(r, 1<<20)
	line, err := readLine(lines, MaxHeader)
	if err != nil {
		return nil, err
	}
	var h Header
	if err := envelope.DecodeCanonical(line, MaxHeader, &h); err != nil {
		return nil, failure.Reclass(failure.ClassOf(err), fmt.Errorf("the header: %s", failure.DetailOf(err)))
	}
	if h.MediaType != MediaType {
		return nil, failure.New(failure.PayloadMalformed, "mediaType is %.120q, not %s", h.MediaType, MediaType)
	}
	v, err := Verify(ctx, trust, Claim{h.Registry, h.Checkpoint}, leavesOf(lines))
	switch {
	case err != nil:
		return nil, err
	case h.KernelID != v.KernelID || h.Size != v.Size:
		return nil, failure.New(failure.BindingMismatch, "the header is of %d events of %q, the checkpoint of %d of %q", h.Size, h.KernelID, v.Size, v.KernelID)
	}
	return v, nil
}

// leavesOf yields each further line, without its newline.
func leavesOf(lines *bufio.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			if _, err := lines.Peek(1); errors.Is(err, io.EOF) {
				return
			}
			line, err := readLine(lines, auditlog.MaxLeaf)
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// readLine reads one line of at most limit bytes. A file that ends within a
// line was cut.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit+1:
			return nil, failure.New(failure.PayloadMalformed, "a line has more than %d bytes", limit)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF):
			return nil, failure.New(failure.PayloadMalformed, "the file ends within a line: it was cut, or is no exported log")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
