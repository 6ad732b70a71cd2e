package softhsm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"

	p11 "github.com/miekg/pkcs11"
)

var labelForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)

// Token is one SoftHSM2 token.
type Token struct {
	Label   string
	Serial  string
	PINFile string // mode 0600, one line
	env     *Env
}

// CreateToken makes a token with a random PIN, which it writes to
// Token.PINFile. The security officer's PIN is forgotten: a throw-away token
// is replaced, not unlocked. A label that exists is an error.
func (e *Env) CreateToken(label string) (*Token, error) {
	if !labelForm.MatchString(label) {
		return nil, fmt.Errorf("softhsm: a token label is 1 to 32 letters, digits, dots, underscores and hyphens, not %q", label)
	}
	t := &Token{Label: label, PINFile: filepath.Join(e.Dir, "pins", label+".pin"), env: e}
	pin, err := randomPIN()
	if err != nil {
		return nil, err
	}
	officer, err := randomPIN()
	if err != nil {
		return nil, err
	}
	err = e.withModule(func(c *p11.Ctx) error {
		slot, err := freeSlot(c, label)
		if err != nil {
			return err
		}
		// Before the token: a token whose PIN is lost is worse than a PIN without token.
		if err := writePIN(t.PINFile, pin); err != nil {
			return err
		}
		return t.initialise(c, slot, officer, pin)
	})
	if err != nil {
		return nil, fmt.Errorf("softhsm: create token %q: %w", label, err)
	}
	return t, nil
}

// freeSlot finds the slot of the token that does not exist yet, which
// SoftHSM2 always has.
func freeSlot(c *p11.Ctx, label string) (uint, error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	free, found := uint(0), false
	for _, s := range slots {
		info, err := c.GetTokenInfo(s)
		if err != nil {
			return 0, err
		}
		if info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			free, found = s, true
		} else if info.Label == label {
			return 0, errors.New("a token with this label exists")
		}
	}
	if !found {
		return 0, errors.New("the module offers no free slot")
	}
	return free, nil
}

func (t *Token) initialise(c *p11.Ctx, slot uint, officer, pin string) error {
	if err := c.InitToken(slot, officer, t.Label); err != nil {
		return err
	}
	session, err := c.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer c.CloseSession(session)
	if err := c.Login(session, p11.CKU_SO, officer); err != nil {
		return err
	}
	defer c.Logout(session)
	if err := c.InitPIN(session, pin); err != nil {
		return err
	}
	info, err := c.GetTokenInfo(slot)
	if err != nil {
		return err
	}
	t.Serial = info.SerialNumber
	return nil
}

// withModule runs f with the module initialised, by others or, for the while,
// by itself. The module stays loaded: it does not bear being unloaded.
func (e *Env) withModule(f func(*p11.Ctx) error) error {
	c := p11.New(e.Module)
	if c == nil {
		return fmt.Errorf("%s cannot be loaded", e.Module)
	}
	err := c.Initialize()
	switch {
	case err == nil:
		defer c.Finalize()
	case !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		return fmt.Errorf("initialise %s: %w", e.Module, err)
	}
	return f(c)
}

// randomPIN has 12 digits: a form that people can type, and every token takes.
func randomPIN() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000_000_000))
	if err != nil {
		return "", fmt.Errorf("softhsm: random PIN: %w", err)
	}
	return fmt.Sprintf("%012d", n), nil
}

func writePIN(path, pin string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(pin + "\n")
	return errors.Join(err, file.Close())
}

// PIN reads the token's PIN.
func (t *Token) PIN() (string, error) {
	pin, err := os.ReadFile(t.PINFile)
	if err != nil {
		return "", fmt.Errorf("softhsm: %w", err)
	}
	if len(pin) == 0 || pin[len(pin)-1] != '\n' {
		return "", fmt.Errorf("softhsm: %s holds no PIN", t.PINFile)
	}
	return string(pin[:len(pin)-1]), nil
}
