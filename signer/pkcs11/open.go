package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// Defaults of Options and URI.
const (
	DefaultMaxSessions = 8
	DefaultQueue       = 256
	DefaultCallTimeout = 20 * time.Second // a card that waits for a touch takes up to 15 s
	// DefaultKeepAlive is well under the 30 s after which a YubiHSM 2 closes sessions.
	DefaultKeepAlive = 10 * time.Second
)

// Options are what a URI does not say. Zero values take the defaults.
type Options struct {
	// PIN asks for the PIN of the token with this label, where the URI has no
	// pin-source. Its result is wiped after use. It is called again where a
	// token wants the PIN again.
	PIN func(ctx context.Context, token string) ([]byte, error)
	// KeyID, if set, is the key expected (signer.PublicKey.KeyID): another is refused.
	KeyID string
	// CallTimeout is how long one call into the module may take before it
	// counts as stuck. Of signers that share a token the first one's counts.
	CallTimeout time.Duration
	// KeepAlive is how often a token that nobody uses is sent a harmless
	// command, so that it keeps the login. The first signer's counts here too.
	KeepAlive time.Duration
	// Queue is how many callers may wait for a session.
	Queue int
	// OnStuck is called, on a goroutine of its own, when a call has not returned
	// within CallTimeout. A process that only signs should exit then.
	OnStuck func()
	// Inline makes Sign call the module on the caller's goroutine. That spares
	// two changes of thread, some 20 us, but Sign then returns only when the
	// module does: for a process that OnStuck ends.
	Inline bool
}

func (o Options) withDefaults() Options {
	if o.CallTimeout <= 0 {
		o.CallTimeout = DefaultCallTimeout
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = DefaultKeepAlive
	}
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	return o
}

// Open finds the one key that u names, logs in, and reads its public key.
// Errors wrap signer.ErrUnavailable, ErrPIN or ErrKey. Opening is a person's
// act: it lets a PIN be tried once more after one was refused.
//
// The Signer checks each signature (signer.Verified). ctx bounds Open, and is
// handed to opts.PIN at later logins without its deadline.
func Open(ctx context.Context, u URI, opts Options) (signer.Signer, error) {
	k, err := openKey(ctx, u, opts)
	if err != nil {
		return nil, err
	}
	return signer.Verified(k), nil
}

func openKey(ctx context.Context, u URI, opts Options) (*key, error) {
	type result struct {
		k   *key
		err error
	}
	opts = opts.withDefaults()
	done := make(chan result)
	go func() {
		k, err := open(ctx, u, opts)
		select {
		case done <- result{k, err}:
		case <-ctx.Done():
			if k != nil {
				_ = k.Close() // nobody wants it any more
			}
		}
	}()
	select {
	case r := <-done:
		return r.k, r.err
	case <-ctx.Done():
		return nil, lateError(ctx)
	}
}

func open(ctx context.Context, u URI, opts Options) (*key, error) {
	m, err := acquireModule(u.ModulePath)
	if err != nil {
		return nil, err
	}
	t, err := openToken(m, u, opts)
	if err != nil {
		m.release()
		return nil, err
	}
	k := &key{token: t, opts: opts, pin: newPINReader(context.WithoutCancel(ctx), u.PINSource, opts.PIN)}
	if err := k.load(ctx, u); err != nil {
		t.leave()
		m.release()
		return nil, k.explain(err)
	}
	return k, nil
}

// openToken finds the token. One that the module does not see may be newer
// than the module's last start, so the module is started again once.
func openToken(m *module, u URI, opts Options) (*token, error) {
	info, seen, err := lookToken(m, u, opts)
	if errors.Is(err, errAbsent) && m.reset(seen) == nil {
		info, _, err = lookToken(m, u, opts)
	}
	if errors.Is(err, errAbsent) {
		return nil, fmt.Errorf("%w: %s: %w", signer.ErrUnavailable, u, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	sessions := u.MaxSessions
	if sessions == 0 {
		sessions = DefaultMaxSessions
	}
	return m.joinToken(info, opts, sessions), nil
}

func lookToken(m *module, u URI, opts Options) (info p11.TokenInfo, epoch uint64, err error) {
	m.life.RLock()
	defer m.life.RUnlock()
	defer m.end(m.watch(opts.CallTimeout, opts.OnStuck))
	_, info, err = findToken(m.c, u)
	return info, m.epoch.Load(), err
}

// load logs in and reads the key's attributes, once.
func (k *key) load(ctx context.Context, u URI) error {
	t, m := k.token, k.token.module
	t.unlatch()
	s, err := t.pool.take(ctx)
	if err != nil {
		return err
	}
	defer t.pool.give(s)
	m.life.RLock()
	defer m.life.RUnlock()
	defer m.end(m.watch(k.opts.CallTimeout, k.opts.OnStuck))
	gen, err := t.current(k.pin)
	if err != nil {
		return err
	}
	if err := s.open(m.c, gen); err != nil {
		return err
	}
	defer s.giveBack()
	if err := k.read(s, u); err != nil {
		return err
	}
	if k.opts.KeyID != "" && k.opts.KeyID != k.public.KeyID() {
		return keyError("token %q holds key %s under this URI, not %s, which is expected", t.id.label, k.public.KeyID(), k.opts.KeyID)
	}
	return checkMechanism(m.c, gen.slot, k.algorithm)
}

func (k *key) read(s *session, u URI) error {
	c := k.token.module.c
	object, err := findPrivateKey(c, s.handle, u.Object, u.ID)
	if err != nil {
		return noKeyIsKeyError(err)
	}
	if k.label, _, err = attribute(c, s.handle, object, p11.CKA_LABEL); err != nil {
		return err
	}
	if k.id, _, err = attribute(c, s.handle, object, p11.CKA_ID); err != nil {
		return err
	}
	if may, err := flag(c, s.handle, object, p11.CKA_SIGN, true); err != nil {
		return err
	} else if !may {
		return keyError("%q (id=%s) %w", k.label, escapeAll(k.id), errMute)
	}
	always, err := flag(c, s.handle, object, p11.CKA_ALWAYS_AUTHENTICATE, false)
	if err != nil {
		return err
	}
	k.always.Store(always)
	if k.public, err = readPublicKey(c, s.handle, object, k.label, k.id); err != nil {
		return err
	}
	return k.setAlgorithm(u.Algorithm)
}

func (k *key) setAlgorithm(wanted signer.Algorithm) error {
	if wanted == "" {
		wanted = signer.DefaultAlgorithm(k.public.Key())
	}
	if !wanted.Fits(k.public.Key()) {
		return keyError("algorithm %s does not fit the key %q (id=%s)", wanted, k.label, escapeAll(k.id))
	}
	k.algorithm = wanted
	k.mechanism = []*p11.Mechanism{mechanism(wanted)}
	return nil
}

// noKeyIsKeyError: when a key is first opened, that it is not there is the
// URI's fault, not the token's.
func noKeyIsKeyError(err error) error {
	if errors.As(err, new(noKeyError)) {
		return keyError("%w", err)
	}
	return err
}

// within runs f and waits for it no longer than limit. f goes on if it is
// late: it is a call into a module.
func within(limit time.Duration, f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return stuckError()
	}
}
