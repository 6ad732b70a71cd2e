package guard

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// A source crosses the wire as frames: four bytes of length, big-endian, and
// the frame in JSON. So a log of any length needs the memory of one frame.

// maxFrame bounds one, in bytes: a bundle, and what stands around it.
const maxFrame = upgrade.MaxBundle + 4<<20

func writeFrames(w io.Writer, source iter.Seq2[*frame, error]) error {
	out := bufio.NewWriterSize(w, 1<<16)
	for f, err := range source {
		if err != nil {
			return err
		}
		data, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if len(data) > maxFrame {
			return failure.New(failure.PayloadMalformed, "a piece of the source has %d bytes, where at most %d are allowed", len(data), maxFrame)
		}
		_, _ = out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) // Flush tells
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// readFrames reads what writeFrames wrote; more is asked before each frame.
func readFrames(r io.Reader, more func() error) iter.Seq2[*frame, error] {
	return func(yield func(*frame, error) bool) {
		in := bufio.NewReaderSize(r, 1<<16)
		for {
			f, err := readFrame(in, more)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

func readFrame(in *bufio.Reader, more func() error) (*frame, error) {
	var head [4]byte
	if err := more(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, failure.New(failure.PayloadMalformed, "a piece of the source has %d bytes, where at most %d are allowed", n, maxFrame)
	}
	// Grown as it comes: a length alone takes no memory.
	data, err := io.ReadAll(io.LimitReader(in, int64(n)))
	if err == nil && len(data) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = checkValues(data)
	}
	if err != nil {
		return nil, err
	}
	f := new(frame)
	return f, failure.As(failure.PayloadMalformed, json.Unmarshal(data, f, json.RejectUnknownMembers(true)))
}

// Rebuild has the guard rebuild its memory from the source, as Guard.Rebuild.
func (c *Client) Rebuild(ctx context.Context, src Source) error {
	r, w := io.Pipe()
	told := make(chan error, 1)
	go func() {
		err := writeFrames(w, frames(ctx, src))
		_ = w.CloseWithError(err) // never fails
		told <- err
	}()
	err := c.send(ctx, pathRebuild, r, &empty{})
	_ = r.Close()
	// What the source itself says is nearer to the cause than a broken request.
	if cause := <-told; cause != nil && !errors.Is(cause, io.ErrClosedPipe) && failure.ClassOf(err) == "" {
		return cause
	}
	return err
}

// serveRebuild answers a stream of frames. The deadline moves with them.
func (g *Guard) serveRebuild(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	more := func() error {
		return errors.Join(control.SetReadDeadline(time.Now().Add(callTimeout)), control.SetWriteDeadline(time.Now().Add(2*callTimeout)))
	}
	return g.rebuild(r.Context(), readFrames(r.Body, more))
}
