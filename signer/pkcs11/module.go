package pkcs11

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// resetInterval is the least time between two restarts of a module. Callers of
// an absent token restart the module no more often than this, and find the
// token at most this long after its return.
const resetInterval = 40 * time.Millisecond

// module is one loaded module. C_Initialize and C_Finalize act on the whole
// process, so every signer of a path shares one.
type module struct {
	path string
	c    *p11.Ctx
	pins pinSender

	// life is held for reading while a call may be inside the module, and for
	// writing by Initialize and Finalize. Waits for it can last as long as a
	// call that hangs, so it is taken only off the callers' goroutines.
	life sync.RWMutex
	// epoch grows with each Initialize: older handles are void.
	epoch atomic.Uint64
	watchdog

	mu        sync.Mutex // guards what follows; taken before life
	refs      int
	up        bool // initialised
	owned     bool // by us, so ours to finalize
	lastReset time.Time
	tokens    map[identity]*token
}

// modules is a global because what it counts is global: a process has one
// instance of a shared library and one C_Initialize of it. Entries stay: a
// module once loaded is never unloaded, since several crash when they are.
var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// acquireModule loads and initialises the module, or joins those who use it.
func acquireModule(path string) (*module, error) {
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refs == 0 || !m.up {
		m.life.Lock()
		err := m.initialize()
		m.life.Unlock()
		if err != nil {
			return nil, fmt.Errorf("%w: module %s does not initialise: %w", signer.ErrUnavailable, m.path, err)
		}
	}
	m.refs++
	return m, nil
}

func loadModule(path string) (*module, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("%w: PKCS#11 module not found: %w; install it or correct module-path", signer.ErrUnavailable, err)
	}
	if info, err := os.Stat(real); err == nil && info.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%w: PKCS#11 module %s can be changed by anybody (mode %04o): whoever does has the PIN; chmod o-w it", signer.ErrKey, real, info.Mode().Perm())
	}
	modules.Lock()
	defer modules.Unlock()
	if m := modules.byPath[real]; m != nil {
		return m, nil
	}
	c := p11.New(real)
	if c == nil {
		return nil, fmt.Errorf("%w: %s cannot be loaded as a PKCS#11 module: is it one, and built for this system?", signer.ErrUnavailable, real)
	}
	m := &module{path: real, c: c, pins: newPINSender(c), tokens: map[identity]*token{}}
	modules.byPath[real] = m
	return m, nil
}

// initialize is called with mu and life held for writing.
func (m *module) initialize() error {
	err := m.c.Initialize()
	switch {
	case err == nil:
		m.owned = true
	case is(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED):
		// Someone else in this process has, and will finalize.
	default:
		m.up = false
		return err
	}
	m.up = true
	m.epoch.Add(1)
	return nil
}

func (m *module) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs--
	if m.refs > 0 || !m.up || !m.owned || m.stuck.Load() > 0 {
		return
	}
	m.life.Lock()
	defer m.life.Unlock()
	// An error leaves nothing to do: the next Initialize tells.
	_ = m.c.Finalize()
	m.up, m.owned = false, false
}

// reset is the last tier of recovery: Finalize and Initialize. It does nothing
// where someone has reset the module since epoch seen. Every token of the
// module has to log in again.
func (m *module) reset(seen uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up && m.epoch.Load() != seen {
		return nil
	}
	if m.stuck.Load() > 0 {
		return stuckError()
	}
	if m.up && !m.owned {
		return fmt.Errorf("%w: the module was initialised by another part of this process, which has to restart it", signer.ErrUnavailable)
	}
	if time.Since(m.lastReset) < resetInterval {
		return errTooSoon
	}
	m.life.Lock()
	defer m.life.Unlock()
	defer func() { m.lastReset = time.Now() }()
	if m.up {
		_ = m.c.Finalize() // what is broken may not finalize cleanly
	}
	return m.initialize()
}
