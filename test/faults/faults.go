// Package faults builds a PKCS#11 module that wraps another one and fails on
// order: any return code from any call, a hang, a crash, a token that is
// pulled, a PIN that locks, a key that wants its PIN each time, few sessions,
// sessions that expire, other encodings, bad signatures. It is for tests.
//
// The module is a small C library (shim/), compiled at the test's start. It and
// the test share one file, mapped by both: orders take effect at once, in every
// process that has the module loaded, and its counters can be read at any time.
package faults

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

//go:embed shim
var source embed.FS

// Action is what a rule does with a call.
type Action uint32

// The actions.
const (
	Return      Action = iota // Code, and the wrapped module is not asked
	Hang                      // until the rule is cleared; then the call is made
	Crash                     // the process aborts
	Delay                     // Millis, then the call is made
	ReturnAfter               // the call is made, and Code returned all the same
	ReplaceCode               // the call is made, and where it fails Code is returned
)

// Forever as Rule.Times has no end.
const Forever = ^uint32(0)

// Rule is what happens to the calls of one function.
type Rule struct {
	Skip, Times uint32 // Skip calls pass, then Times fail
	Action      Action
	Code        uint32 // a CKR_* code
	Millis      uint32
}

const (
	maxRules   = 32
	nameLength = 24
)

// Number is one word of the control block, changed and read at any time.
type Number struct{ v atomic.Uint32 }

// Set changes it.
func (n *Number) Set(v uint32) { n.v.Store(v) }

// Get reads it.
func (n *Number) Get() uint32 { return n.v.Load() }

type rule struct {
	name                                     [nameLength]byte
	calls, skip, times, action, code, millis atomic.Uint32
}

// Control is the control block: shim/control.h has the same layout, and says
// what each member does.
type Control struct {
	size          atomic.Uint32
	Absent        Number // Present, Absent or AbsentUntilInitialize
	TokenFlags    Number // set besides the token's own
	PINTries      Number // 0: as the wrapped token; else wrong PINs until the lock
	PINLeft       Number
	Always        Number // Never, Always, AlwaysUntold, OnlyTold
	MaxSessions   Number // 0: no cap
	HideCap       Number // the token's information does not tell MaxSessions
	IdleMillis    Number // 0: sessions do not expire
	IdleScope     Number // IdleSession or IdleToken
	Signature     Number // Sound, Corrupt, Short, Long, Empty
	Point         Number // Wrapped or Raw
	Params        Number // AsStored or Printable
	HideMechanism Number // number of a mechanism that is not listed
	OpenSessions  Number // counted by the module
	MostSessions  Number // likewise: ever at once
	OpenSearches  Number // likewise: begun and not ended
	ClockAhead    Number // seconds that the token's clock is ahead; 0: it has none
	HideFinalTry  Number // the token does not tell that one try is left
	pinAt         [2]Number
	rules         [maxRules]rule
}

// Values of Control.Absent.
const (
	Present               = iota
	Absent                // calls say so; it is found again when Present
	AbsentUntilInitialize // and then only after C_Initialize
)

// Values of Control.Always.
const (
	Never        = iota
	Always       // each signature takes the PIN, and the key's attribute says so
	AlwaysUntold // each takes it, and the attribute denies it
	OnlyTold     // the attribute says so, and none takes it
)

// Values of Control.IdleScope.
const (
	IdleSession = iota // a session that is idle expires
	IdleToken          // a token that is idle ends all of its sessions and the login
)

// Values of Control.Signature.
const (
	Sound   = iota
	Corrupt // one bit is wrong
	Short   // a byte too few
	Long    // a byte too many
	Empty
)

// Values of Control.Point.
const (
	Wrapped = iota // CKA_EC_POINT in an OCTET STRING
	Raw
)

// Values of Control.Params.
const (
	AsStored  = iota
	Printable // CKA_EC_PARAMS by the curve's name
)

// Module is one built module and its control block.
type Module struct {
	*Control
	Path string

	mapped []byte
	mu     sync.Mutex
}

// Build makes the module in dir, an empty directory of its own, around the
// module at the path inner. It needs a C compiler: $CC, or gcc.
func Build(dir, inner string) (*Module, error) {
	m := &Module{Path: filepath.Join(dir, "faults.so")}
	code, err := library()
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	if err := os.WriteFile(m.Path, code, 0o600); err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	if err := os.WriteFile(m.Path+".module", []byte(inner), 0o600); err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	return m, m.open(os.O_CREATE)
}

// Attach is the control block of a module that another process has built.
func Attach(path string) (*Module, error) {
	m := &Module{Path: path}
	return m, m.open(0)
}

// library is the module, compiled once in a process.
var library = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the temporary directory's matter
	if err := os.CopyFS(dir, source); err != nil {
		return nil, err
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	path := filepath.Join(dir, "faults.so")
	out, err := exec.Command(cc, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread",
		"-o", path, filepath.Join(dir, "shim", "shim.c"), "-ldl").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("compile the fault module: %w: %s", err, out)
	}
	return os.ReadFile(path)
})

func (m *Module) open(create int) error {
	size := int(unsafe.Sizeof(Control{}))
	file, err := os.OpenFile(m.Path+".control", os.O_RDWR|create, 0o600)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	defer func() { _ = file.Close() }() // the mapping stays
	if err := file.Truncate(int64(size)); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	m.mapped, err = syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("faults: map the control block: %w", err)
	}
	m.Control = (*Control)(unsafe.Pointer(&m.mapped[0]))
	m.size.Store(uint32(size))
	return nil
}

// PINAt is the address of the PIN that this process sent last.
func (c *Control) PINAt() uintptr {
	return uintptr(c.pinAt[1].Get())<<32 | uintptr(c.pinAt[0].Get())
}

// Close gives up the control block. The module, once loaded, keeps its own view.
func (m *Module) Close() error { return syscall.Munmap(m.mapped) }

// Fail sets the rule of a function, such as C_Sign. The zero Rule clears it,
// and lets calls that hang go on.
func (m *Module) Fail(function string, r Rule) error {
	have, err := m.rule(function)
	if err != nil {
		return err
	}
	have.times.Store(0)
	have.code.Store(r.Code)
	have.millis.Store(r.Millis)
	have.action.Store(uint32(r.Action))
	have.skip.Store(r.Skip)
	have.times.Store(r.Times)
	return nil
}

// Calls is how often the function was called since it was first named here.
func (m *Module) Calls(function string) (uint32, error) {
	r, err := m.rule(function)
	if err != nil {
		return 0, err
	}
	return r.calls.Load(), nil
}

func (m *Module) rule(function string) (*rule, error) {
	if len(function) >= nameLength {
		return nil, fmt.Errorf("faults: %q is no function's name", function)
	}
	var name [nameLength]byte
	copy(name[:], function)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rules {
		r := &m.rules[i]
		if r.name == name {
			return r, nil
		}
		if r.name == [nameLength]byte{} {
			r.name = name
			return r, nil
		}
	}
	return nil, errors.New("faults: too many functions have rules")
}
