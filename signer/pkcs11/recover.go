package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// tier is how much is thrown away before a signature is tried again.
type tier int

const (
	tierNone    tier = iota // nothing helps
	tierSession             // the session and the key's handle
	tierLogin               // the login
	tierModule              // the module's state: Finalize and Initialize
)

// least is the gentlest tier that can help after err.
func least(err error) tier {
	switch {
	case isPIN(err), errors.Is(err, signer.ErrKey), errors.Is(err, signer.ErrBadSignature):
		return tierNone
	case errors.Is(err, errAbsent), is(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED):
		return tierModule
	// Private keys are not seen where nobody is logged in.
	case errors.As(err, new(noKeyError)), is(err, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED,
		p11.CKR_DEVICE_REMOVED, p11.CKR_SLOT_ID_INVALID):
		return tierLogin
	case is(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_OBJECT_HANDLE_INVALID,
		p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED,
		p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED,
		p11.CKR_HOST_MEMORY), isVendor(err):
		return tierSession
	}
	return tierNone
}

// isVendor: codes of a vendor's own mostly stand for broken connections.
func isVendor(err error) bool {
	var code p11.Error
	return errors.As(err, &code) && code >= p11.CKR_VENDOR_DEFINED
}

func isPIN(err error) bool { return errors.Is(err, signer.ErrPIN) }

// signRecovering signs, and after a failure repairs more and more until it
// succeeds or the last tier has failed. It gives s back.
func (k *key) signRecovering(ctx context.Context, s *session, data []byte) ([]byte, error) {
	t := k.token
	defer func() { t.pool.give(s) }()
	done := tierNone
	for {
		sig, gen, err := k.attempt(s, data)
		if err == nil {
			return sig, nil
		}
		if is(err, p11.CKR_SESSION_COUNT) && gen != nil {
			if s, err = t.pool.swap(ctx, s); err != nil {
				return nil, err
			}
			continue
		}
		next := max(least(err), done+1)
		if least(err) == tierNone || next > tierModule || ctx.Err() != nil {
			return nil, k.explain(err)
		}
		done = next
		if repairErr := k.repair(done, s, gen); repairErr != nil {
			if errors.Is(repairErr, errTooSoon) {
				return nil, k.explain(err)
			}
			return nil, k.explain(repairErr)
		}
	}
}

// swap parks a permit for which the token has no session, and takes another.
// On error it returns s, which is in no pool then, for the caller to give.
func (p *pool) swap(ctx context.Context, s *session) (*session, error) {
	other, err := (*session)(nil), error(nil)
	select {
	case other = <-p.free:
	case <-time.After(parkTime):
		return s, nil
	case <-ctx.Done():
		err = fmt.Errorf("%w: the token has no session left, other programs use them all: %w", signer.ErrBusy, ctx.Err())
		return s, err
	}
	p.park(s)
	return other, nil
}

// repair does one tier's work. A failed login is not reported here: the next
// attempt meets it, and takes the next tier.
func (k *key) repair(how tier, s *session, gen *generation) error {
	m := k.token.module
	if how == tierModule {
		seen := m.epoch.Load()
		if gen != nil {
			seen = gen.epoch
		}
		defer m.end(m.watch(k.opts.CallTimeout, k.opts.OnStuck))
		return m.reset(seen)
	}
	m.life.RLock()
	defer m.life.RUnlock()
	defer m.end(m.watch(k.opts.CallTimeout, k.opts.OnStuck))
	s.discard(m.c, gen)
	k.handle.Store(nil)
	if how == tierLogin {
		if err := k.token.renew(gen, k.pin); isPIN(err) {
			return err
		}
	}
	return nil
}

func (k *key) explain(err error) error { return explain(err, k.token.id.label, k.algorithm) }

// explain is the error that the caller gets: what is wrong with the token of
// this label, and whether it may pass.
func explain(err error, label string, a signer.Algorithm) error {
	for _, known := range []error{signer.ErrUnavailable, signer.ErrPIN, signer.ErrKey, signer.ErrBusy, signer.ErrBadSignature} {
		if errors.Is(err, known) {
			return err
		}
	}
	switch {
	case errors.As(err, new(noKeyError)):
		return fmt.Errorf("%w: token %q has lost the key, or is on its way out: %w", signer.ErrUnavailable, label, err)
	case is(err, p11.CKR_SESSION_COUNT):
		return fmt.Errorf("%w: token %q has no session left; other programs use them all: %w", signer.ErrBusy, label, err)
	case least(err) != tierNone:
		return fmt.Errorf("%w: token %q is away: %w", signer.ErrUnavailable, label, err)
	case is(err, p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_KEY_TYPE_INCONSISTENT,
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_KEY_SIZE_RANGE, p11.CKR_DATA_LEN_RANGE, p11.CKR_DATA_INVALID):
		return keyError("token %q cannot sign %s with it: %w", label, a, err)
	}
	return fmt.Errorf("%w: token %q: %w", signer.ErrUnavailable, label, err)
}
