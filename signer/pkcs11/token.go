package pkcs11

import (
	"fmt"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// token is one token, shared by the keys in it that this process has open:
// the login is the whole process's, and so is the token's session limit.
type token struct {
	module *module
	id     identity
	uri    URI // matches this token only
	pool   *pool
	stop   chan struct{}
	refs   int // guarded by module.mu

	mu    sync.Mutex // guards what follows; held over logins
	gen   *generation
	latch error // why no PIN is sent any more
	// unclear is what the last login failed with, where that was no word about the PIN.
	unclear error
}

// generation is one login; session and object handles are good in it only.
type generation struct {
	epoch uint64 // of the module
	slot  uint
	// lent is held by who uses the login session for something else.
	lent  sync.Mutex
	login p11.SessionHandle
}

// joinToken returns the module's token with this identity, shared with those
// who have it open. leave gives it back.
func (m *module) joinToken(info p11.TokenInfo, opts Options, maxSessions int) *token {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := identityOf(info)
	t := m.tokens[id]
	if t == nil {
		t = &token{module: m, id: id, uri: pinned(id), stop: make(chan struct{})}
		t.pool = newPool(sessionLimit(info, maxSessions), opts.Queue)
		m.tokens[id] = t
		go t.keepAlive(opts)
	}
	t.refs++
	return t
}

// sessionLimit is the pool's size: what is configured, and no more than the
// token takes besides the login session. A token that takes a single session
// lends that one.
func sessionLimit(info p11.TokenInfo, configured int) int {
	most := info.MaxSessionCount
	if most == p11.CK_EFFECTIVELY_INFINITE || most == p11.CK_UNAVAILABLE_INFORMATION || most > maxSessionsLimit {
		return configured
	}
	return max(1, min(configured, int(most)-1))
}

func (t *token) leave() {
	m := t.module
	m.mu.Lock()
	t.refs--
	last := t.refs == 0
	if last {
		delete(m.tokens, t.id)
		close(t.stop)
		t.pool.stop()
	}
	m.mu.Unlock()
	if !last || m.stuck.Load() > 0 {
		return
	}
	m.life.RLock()
	defer m.life.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen != nil && t.gen.epoch == m.epoch.Load() {
		t.pool.closeAll(m.c, t.gen)
		_ = m.c.CloseSession(t.gen.login) // the last session's end is the logout
	}
	t.gen = nil
}

// current is the generation that is good now; it logs in where there is none.
// Called with module.life held.
func (t *token) current(pin pinReader) (*generation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen != nil && t.gen.epoch == t.module.epoch.Load() {
		return t.gen, nil
	}
	return t.begin(pin)
}

// renew replaces old by a new login, unless someone has already.
// Called with module.life held.
func (t *token) renew(old *generation, pin pinReader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen != old || old == nil {
		return nil
	}
	t.gen = nil
	if old.epoch == t.module.epoch.Load() {
		_ = t.module.c.CloseSession(old.login) // likely dead already
	}
	_, err := t.begin(pin)
	return err
}

// begin opens the login session and logs in. Called with t.mu held.
func (t *token) begin(pin pinReader) (*generation, error) {
	if t.latch != nil {
		return nil, t.latch
	}
	m := t.module
	slot, _, err := findToken(m.c, t.uri)
	if err != nil {
		return nil, err
	}
	session, err := m.c.OpenSession(slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, fmt.Errorf("open the login session: %w", err)
	}
	if err := t.login(slot, session, p11.CKU_USER, pin); err != nil {
		_ = m.c.CloseSession(session)
		return nil, err
	}
	t.gen = &generation{epoch: m.epoch.Load(), slot: slot, login: session}
	return t.gen, nil
}

// unlatch lets one more PIN be tried: a person has opened the key anew.
func (t *token) unlatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latch, t.unclear = nil, nil
}

func (t *token) keepAlive(opts Options) {
	ticker := time.NewTicker(opts.KeepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ticker.C:
			t.touch(opts)
		}
	}
}

// touch sends the token a harmless command. Random bytes are asked for, since
// session information is often answered by the module alone. A failure is
// left to the next signature, which recovers from it.
func (t *token) touch(opts Options) {
	m := t.module
	if m.stuck.Load() > 0 {
		return
	}
	m.life.RLock()
	defer m.life.RUnlock()
	t.mu.Lock()
	gen := t.gen
	t.mu.Unlock()
	if gen == nil || gen.epoch != m.epoch.Load() || !gen.lent.TryLock() {
		return
	}
	defer gen.lent.Unlock()
	defer m.end(m.watch(opts.CallTimeout, opts.OnStuck))
	_, _ = m.c.GenerateRandom(gen.login, 8)
}
