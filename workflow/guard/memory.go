package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// memory is what the guard must never forget (PROTOCOL section 11).
type memory struct {
	Clock       envelope.Time                   `json:"clock"` // the highest that was used
	Registry    []keyregistry.SignedDocument    `json:"registry"`
	Root        []byte                          `json:"root"` // of the last checkpoint
	Size        int64                           `json:"size"`
	Suspensions []envelope.Envelope             `json:"suspensions"` // under the newest document
	Suspended   map[envelope.KeyID]bool         `json:"suspended"`
	Targets     map[envelope.ID]*targetMemory   `json:"targets"`
	Upgrades    map[envelope.UUID]*signedMemory `json:"upgrades"`
}

// targetMemory is what is live at a target, as far as signatures say.
type targetMemory struct {
	Live        upgrade.Revision `json:"live"`
	LiveUpgrade envelope.UUID    `json:"liveUpgrade,omitzero"`
	// Open are emergencies that were neither ratified nor followed by a record
	// with a quorum.
	Open []envelope.UUID `json:"open"`
}

// signedMemory is all that was signed for one upgrade.
type signedMemory struct {
	BundleDigest envelope.Digest       `json:"bundleDigest"`
	Bundle       *upgrade.QuorumBundle `json:"bundle,omitzero"` // emergencies only, for their ratification
	Record       envelope.Envelope     `json:"record"`
	Manifest     upgrade.Manifest      `json:"manifest"`
	DecidedAt    envelope.Time         `json:"decidedAt"`
	RatifyBy     *envelope.Time        `json:"ratifyBy,omitzero"`
	Previous     upgrade.Revision      `json:"previous"`
	PreviousID   envelope.UUID         `json:"previousId,omitzero"`
	Outcome      string                `json:"outcome"` // the event type; empty while unknown
	CanaryFailed bool                  `json:"canaryFailed"`
	Ratification *ratificationMemory   `json:"ratification,omitzero"`
	Rollback     *envelope.Envelope    `json:"rollback,omitzero"` // the Kernel's rollback manifest
}

type ratificationMemory struct {
	BundleDigest envelope.Digest   `json:"bundleDigest"`
	Record       envelope.Envelope `json:"record"`
}

const (
	lockSuffix = ".lock"
	tempSuffix = ".new"
)

// maxMemory bounds what is read at the start, in bytes.
const maxMemory = 1 << 30

func (m *memory) target(name envelope.ID) *targetMemory {
	t := m.Targets[name]
	if t == nil {
		t = &targetMemory{Live: upgrade.None}
		m.Targets[name] = t
	}
	return t
}

func (m *memory) root() tlog.Hash { return tlog.Hash(m.Root) }

func parseMemory(data []byte) (*memory, error) {
	m := new(memory)
	if err := envelope.DecodeCanonical(data, maxMemory, m); err != nil {
		return nil, err
	}
	if len(m.Root) != tlog.HashSize {
		return nil, errors.New("the checkpoint's root is malformed")
	}
	return m, nil
}

func (m *memory) clone() (*memory, error) {
	data, err := envelope.Canonical(m)
	if err != nil {
		return nil, err
	}
	return parseMemory(data)
}

// disk is the file that memory lives in. step, where tests set it, is asked
// before each step of a write and stops it there by an error.
type disk struct {
	path string
	lock *os.File
	step func(name string) error
}

// openDisk takes the exclusive lock, so that one guard uses a memory.
func openDisk(path string) (*disk, error) {
	lock, err := os.OpenFile(path+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("guard: another guard uses the memory %s; stop it first: %w", path, err)
	}
	return &disk{path: path, lock: lock, step: func(string) error { return nil }}, nil
}

// load is the memory, nil where there is none.
func (d *disk) load() (*memory, error) {
	data, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseMemory(data)
	if err != nil {
		return nil, fmt.Errorf("guard: the memory %s is damaged; it must be rebuilt, not deleted: %w", d.path, err)
	}
	return m, nil
}

// save replaces the memory, whole, and is durable when it returns nil. After
// an error either state may be on the disk.
func (d *disk) save(m *memory) error {
	data, err := envelope.Canonical(m)
	if err != nil {
		return err
	}
	if err := d.writeTemp(data); err != nil {
		return err
	}
	if err := d.step("rename"); err != nil {
		return err
	}
	if err := os.Rename(d.path+tempSuffix, d.path); err != nil {
		return err
	}
	if err := d.step("sync-directory"); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(d.path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close(), d.step("done"))
}

func (d *disk) writeTemp(data []byte) error {
	if err := d.step("create"); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path+tempSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := d.step("write"); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := d.step("sync"); err != nil {
		return err
	}
	return f.Sync()
}

func (d *disk) close() error { return d.lock.Close() }
