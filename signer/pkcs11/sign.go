package pkcs11

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// key is one private key in a token: the Signer that Open wraps.
type key struct {
	token     *token
	opts      Options
	pin       pinReader
	label, id []byte // as found, to find it again
	public    signer.PublicKey
	algorithm signer.Algorithm
	mechanism []*p11.Mechanism

	// always: each signature takes the PIN (CKA_ALWAYS_AUTHENTICATE), as the
	// attribute says or as the token was found to want.
	always atomic.Bool
	handle atomic.Pointer[foundKey]

	mu     sync.RWMutex // guards closed; read-held to begin a signature
	closed bool
	ops    sync.WaitGroup
}

type foundKey struct {
	gen    *generation
	object p11.ObjectHandle
}

func (k *key) Public() signer.PublicKey    { return k.public }
func (k *key) Algorithm() signer.Algorithm { return k.algorithm }

// Sign returns by ctx's end, whatever the module does. The call that it leaves
// behind keeps its session until it returns.
func (k *key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if err := signer.CheckHardwareMessage(k.algorithm, message); err != nil {
		return nil, err
	}
	if !k.enter() {
		return nil, errClosed
	}
	if k.token.module.stuck.Load() > 0 {
		k.ops.Done()
		return nil, stuckError()
	}
	if err := ctx.Err(); err != nil {
		k.ops.Done()
		return nil, fmt.Errorf("%w: %w", signer.ErrUnavailable, err)
	}
	s, err := k.token.pool.take(ctx)
	if err != nil {
		k.ops.Done()
		return nil, err
	}
	if k.opts.Inline {
		defer k.ops.Done()
		return k.signRecovering(ctx, s, input(k.algorithm, message))
	}
	return k.signApart(ctx, s, input(k.algorithm, message))
}

// signApart signs on a goroutine of the pool, which the caller can leave.
func (k *key) signApart(ctx context.Context, s *session, data []byte) ([]byte, error) {
	type result struct {
		sig []byte
		err error
	}
	done := make(chan result, 1)
	k.token.pool.run(func() {
		defer k.ops.Done()
		sig, err := k.signRecovering(ctx, s, data)
		done <- result{sig, err}
	})
	select {
	case r := <-done:
		return r.sig, r.err
	case <-ctx.Done():
		return nil, lateError(ctx)
	}
}

func (k *key) enter() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return false
	}
	k.ops.Add(1)
	return true
}

// attempt signs once. gen is the generation that it used, nil where there was
// none. s stays with the caller.
func (k *key) attempt(s *session, data []byte) (sig []byte, gen *generation, err error) {
	m := k.token.module
	m.life.RLock()
	defer m.life.RUnlock()
	defer m.end(m.watch(k.opts.CallTimeout, k.opts.OnStuck))
	if gen, err = k.token.current(k.pin); err != nil {
		return nil, nil, err
	}
	if err := s.open(m.c, gen); err != nil {
		return nil, gen, err
	}
	defer s.giveBack()
	object, err := k.find(s)
	if err != nil {
		return nil, gen, err
	}
	raw, err := k.signOnce(s, object, data)
	if err != nil {
		return nil, gen, err
	}
	sig, err = output(k.public, raw)
	return sig, gen, err
}

// find returns the private key's handle in the session's generation.
func (k *key) find(s *session) (p11.ObjectHandle, error) {
	if f := k.handle.Load(); f != nil && f.gen == s.gen {
		return f.object, nil
	}
	object, err := findPrivateKey(k.token.module.c, s.handle, string(k.label), k.id)
	if err != nil {
		return 0, err
	}
	k.handle.Store(&foundKey{s.gen, object})
	return object, nil
}

// signOnce is SignInit, the PIN where the key wants it each time, and Sign, all
// on one session. A token that wants the PIN without saying so in its
// attributes answers that nobody is logged in; that is tried once.
func (k *key) signOnce(s *session, object p11.ObjectHandle, data []byte) ([]byte, error) {
	always := k.always.Load()
	sig, err := k.signWith(s, object, data, always)
	if always || !is(err, p11.CKR_USER_NOT_LOGGED_IN) || k.pin == nil {
		return sig, err
	}
	sig, again := k.signWith(s, object, data, true)
	if again != nil {
		if isPIN(again) {
			return nil, again
		}
		return nil, err
	}
	k.always.Store(true)
	return sig, nil
}

func (k *key) signWith(s *session, object p11.ObjectHandle, data []byte, authenticate bool) ([]byte, error) {
	c := k.token.module.c
	if err := c.SignInit(s.handle, k.mechanism, object); err != nil {
		return nil, fmt.Errorf("begin to sign: %w", err)
	}
	if authenticate {
		if err := k.authenticate(s); err != nil {
			return nil, err
		}
	}
	sig, err := c.Sign(s.handle, data)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, nil
}

// authenticate gives the PIN for the one signature begun on s.
func (k *key) authenticate(s *session) error {
	k.token.mu.Lock()
	defer k.token.mu.Unlock()
	err := k.token.login(s.gen.slot, s.handle, p11.CKU_CONTEXT_SPECIFIC, k.pin)
	if is(err, p11.CKR_OPERATION_NOT_INITIALIZED) {
		return nil // the attribute says that the PIN is wanted, the token does not
	}
	return err
}

// Close waits for signatures under way, but not for a module that is stuck.
func (k *key) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.mu.Unlock()
	return within(k.opts.CallTimeout, func() {
		k.ops.Wait()
		k.token.leave()
		k.token.module.release()
	})
}
