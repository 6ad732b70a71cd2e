package pkcs11

import (
	"context"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// pinReader returns the PIN of the token with this label. Who calls it wipes
// what it returns.
type pinReader func(token string) ([]byte, error)

func newPINReader(ctx context.Context, source PINSource, ask func(context.Context, string) ([]byte, error)) pinReader {
	if source.IsZero() && ask == nil {
		return nil
	}
	return func(label string) ([]byte, error) {
		if source.IsZero() {
			return ask(ctx, label)
		}
		return source.read()
	}
}

// checkPINFlags refuses to send a PIN that could be the last that the token
// takes.
func checkPINFlags(info p11.TokenInfo) error {
	switch {
	case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return pinError("the PIN of token %q is locked after too many wrong ones; unlock it with the token's own tool (SO PIN or PUK)", info.Label)
	case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return pinError("token %q has one try left, and a wrong PIN would lock it; log in once by hand with the token's own tool, then start again", info.Label)
	case info.Flags&p11.CKF_USER_PIN_TO_BE_CHANGED != 0:
		return pinError("token %q wants its PIN changed first; change it with the token's own tool", info.Label)
	}
	return nil
}

// login sends the PIN once, as user is CKU_USER or CKU_CONTEXT_SPECIFIC. It is
// the one place that sends a PIN. Called with t.mu held.
func (t *token) login(slot uint, session p11.SessionHandle, user uint, pin pinReader) error {
	if t.latch != nil {
		return t.latch
	}
	info, err := t.module.c.GetTokenInfo(slot)
	if err != nil {
		return fmt.Errorf("read the token's state: %w", err)
	}
	if pin == nil && info.Flags&p11.CKF_LOGIN_REQUIRED == 0 && user == p11.CKU_USER {
		return nil
	}
	if err := checkPINFlags(info); err != nil {
		return err
	}
	// Some modules say only that something failed when a PIN is wrong.
	if t.unclear != nil && info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.latch = pinError("token %q counts a wrong one since a login failed (%w); it is not tried again, since tokens lock: correct the pin-source, then open the key anew",
			info.Label, t.unclear)
		return t.latch
	}
	secret, err := readPIN(pin, info)
	if err != nil {
		return err
	}
	defer clear(secret)
	err = t.module.pins.send(session, user, secret)
	switch {
	case err == nil, is(err, p11.CKR_USER_ALREADY_LOGGED_IN):
		t.unclear = nil
		return nil
	case is(err, p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_INVALID):
		t.latch = pinError("token %q refused it (%w); it is not tried again, since tokens lock: correct the pin-source, then open the key anew", info.Label, err)
		return t.latch
	case is(err, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_USER_PIN_NOT_INITIALIZED):
		t.latch = pinError("token %q: %w", info.Label, err)
		return t.latch
	}
	t.unclear = err
	return fmt.Errorf("%w: %w", ErrLogin, err)
}

func readPIN(pin pinReader, info p11.TokenInfo) ([]byte, error) {
	if info.Flags&p11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil, nil // the token asks on its own keypad
	}
	if pin == nil {
		return nil, pinError("token %q needs one: add &pin-source=file:/path, env:NAME or credential:NAME to the URI", info.Label)
	}
	secret, err := pin(info.Label)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", signer.ErrPIN, err)
	}
	return secret, nil
}
