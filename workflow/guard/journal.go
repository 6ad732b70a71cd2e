package guard

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// journal is the file that memory lives in: a snapshot, then what changed
// since, one change a line. A line is a checksum in hex, a space and the
// change in JSON; the checksum is SHA-256 over the one before it (32 zero bytes
// at first) and the JSON, so a line lost from the middle is noticed.
//
// A change is on the disk when append returns nil. Once the changes outweigh
// the snapshot, the file is replaced by a new snapshot, whole (snapshot.go).
type journal struct {
	path     string
	files    files
	lock     io.Closer
	file     file
	end      chain
	snapshot int64     // bytes at the last compaction
	next     *snapshot // is being written; nil: none
}

// chain is where a file's lines end: the last checksum, and how many bytes.
type chain struct {
	sum  [sha256.Size]byte
	size int64
}

// files is the file system as a journal needs it.
type files interface {
	Open(name string, flag int) (file, error)
	Rename(from, to string) error
	SyncDir(name string) error
}

type file interface {
	io.ReadWriteCloser
	Sync() error
	Truncate(size int64) error
}

type osFiles struct{}

func (osFiles) Open(name string, flag int) (file, error) { return os.OpenFile(name, flag, 0o600) }
func (osFiles) Rename(from, to string) error             { return os.Rename(from, to) }

func (osFiles) SyncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

const (
	lockSuffix = ".lock"
	tempSuffix = ".new"
	maxLine    = 4 << 20 // bytes; the longest is a registry document in base64
	minGrowth  = 1 << 20 // bytes of changes that are never worth a new snapshot
)

func errDamaged(format string, args ...any) error {
	return fmt.Errorf("the memory is damaged, and must be rebuilt from the log: "+format, args...)
}

// openJournal takes the exclusive lock, so that one guard uses a memory.
func openJournal(path string, fsys files) (*journal, error) {
	lock, err := os.OpenFile(path+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("guard: another guard uses the memory %s; stop it first: %w", path, err)
	}
	return &journal{path: path, files: fsys, lock: lock}, nil
}

// load is the memory, nil where there is none. A last line that a crash cut
// off was never answered for, and is cut away.
func (j *journal) load(root envelope.Digest) (*memory, error) {
	f, err := j.files.Open(j.path, os.O_RDWR|os.O_APPEND)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	m, err := j.read(f, root)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("guard: %s: %w", j.path, err)
	}
	j.file, j.snapshot = f, j.end.size
	return m, nil
}

func (j *journal) read(f file, root envelope.Digest) (*memory, error) {
	m, r := newMemory(), bufio.NewReaderSize(f, 1<<16)
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		c, sum, err := parseLine(j.end.sum, line)
		if err != nil {
			if err := isTorn(line, r); err != nil {
				return nil, err
			}
			if err := errors.Join(f.Truncate(j.end.size), f.Sync()); err != nil {
				return nil, err
			}
			break
		}
		if err := m.apply(root, c); err != nil {
			return nil, errDamaged("%w", err)
		}
		j.end = chain{sum, j.end.size + int64(len(line))}
	}
	if len(m.regs) == 0 {
		return nil, errDamaged("it has no registry document")
	}
	return m, nil
}

// readLine reads a line with its end, at most maxLine bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
			return line, err
		}
	}
}

func parseLine(last [sha256.Size]byte, line []byte) (*change, [sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	body, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended || len(body) < 2*len(sum)+1 || body[2*len(sum)] != ' ' {
		return nil, sum, errDamaged("a line is malformed")
	}
	data := body[2*len(sum)+1:]
	sum = checksum(last, data)
	if hex.EncodeToString(sum[:]) != string(body[:2*len(sum)]) {
		return nil, sum, errDamaged("a line does not have its checksum")
	}
	c := new(change)
	if err := json.Unmarshal(data, c, json.RejectUnknownMembers(true)); err != nil {
		return nil, sum, errDamaged("%w", err)
	}
	return c, sum, nil
}

func checksum(last [sha256.Size]byte, data []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(last[:])
	h.Write(data)
	return [sha256.Size]byte(h.Sum(nil))
}

// isTorn refuses a bad line that no crash explains: a crash leaves the last
// line short, or zeros where the file system had not written yet.
func isTorn(line []byte, r *bufio.Reader) error {
	if !bytes.HasSuffix(line, []byte("\n")) && len(line) <= maxLine {
		return nil
	}
	if _, err := r.Peek(1); errors.Is(err, io.EOF) && bytes.IndexByte(line, 0) >= 0 {
		return nil
	}
	return errDamaged("a line was changed")
}

// line is a change as the file has it, and where the chain ends with it.
func (c chain) line(next *change) ([]byte, chain, error) {
	data, err := json.Marshal(next)
	if err != nil {
		return nil, c, err
	}
	c.sum = checksum(c.sum, data)
	line := make([]byte, 0, 2*len(c.sum)+len(data)+2)
	line = append(hex.AppendEncode(line, c.sum[:]), ' ')
	line = append(append(line, data...), '\n')
	if len(line) > maxLine {
		return nil, c, failure.New(failure.PayloadMalformed, "a change of %d bytes is too long for the guard's memory, which takes %d", len(line), maxLine)
	}
	c.size += int64(len(line))
	return line, c, nil
}

func (c *chain) write(w io.Writer, next *change) error {
	line, end, err := c.line(next)
	if err == nil {
		_, err = w.Write(line)
	}
	*c = end
	return err
}

// append writes one line, and is durable when it returns nil. After an error
// the line may be on the disk or not.
func (j *journal) append(line []byte, end chain) error {
	if _, err := j.file.Write(line); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.end = end
	return nil
}

func (j *journal) close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}
