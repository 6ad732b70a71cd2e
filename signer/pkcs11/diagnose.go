package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// State is what a check came to.
type State string

// The states. A warning does not keep the key from signing.
const (
	StateOK      State = "ok"
	StateWarning State = "warning"
	StateProblem State = "problem"
)

// Finding is one thing that Diagnose looked at, in plain words.
type Finding struct {
	Check string `json:"check"` // module, token, pin, clock, key or signature
	State State  `json:"state"`
	Says  string `json:"says"`
	Do    string `json:"do,omitzero"` // what helps; empty where nothing is wrong
}

// maxClockSkew is what PROTOCOL section 7 allows between two clocks.
const maxClockSkew = 300 * time.Second

// TestMessage is what a key is tried with: no DSSE encoding and no checkpoint, so its signature is good
// for nothing.
const TestMessage = "kernelgate: test signature of key doctor, good for nothing"

// Diagnose looks at everything that a signature needs, in the order in which
// it needs it, and stops at the first problem that hides the rest. It sends the
// PIN at most once, and not at all to a token that has one try left. now is
// this machine's clock.
func Diagnose(ctx context.Context, u URI, now time.Time, opts Options) []Finding {
	opts = opts.withDefaults()
	looked, late := make(chan look), make(chan struct{})
	go func() {
		l := lookAt(u, now, opts)
		select {
		case looked <- l:
		case <-late:
			l.end() // nobody waits any more
		}
	}()
	select {
	case l := <-looked:
		defer l.end()
		if l.ok {
			l.found = append(l.found, diagnoseKey(ctx, l.m, u, opts)...)
		}
		return l.found
	case <-time.After(opts.CallTimeout):
		close(late)
		return []Finding{problem("module", stuckError(),
			"Unplug the token and plug it in again, or restart the service that the module talks to (pcscd, yubihsm-connector).")}
	}
}

// look is what can be found out before the PIN is sent; ok if nothing hides
// the rest.
type look struct {
	m     *module
	found []Finding
	ok    bool
}

func (l look) end() {
	if l.m != nil {
		l.m.release()
	}
}

func (l *look) add(f Finding) bool {
	l.found = append(l.found, f)
	l.ok = f.State != StateProblem
	return l.ok
}

// lookAt may hang, as the module may.
func lookAt(u URI, now time.Time, opts Options) (l look) {
	m, f := diagnoseModule(u)
	l.m = m
	if !l.add(f) {
		return l
	}
	info, f := diagnoseToken(m, u, opts)
	_ = l.add(f) && l.add(diagnosePIN(info)) && l.add(diagnoseClock(info, now))
	return l
}

func problem(check string, err error, do string) Finding {
	return Finding{Check: check, State: StateProblem, Says: err.Error(), Do: do}
}

func diagnoseModule(u URI) (*module, Finding) {
	m, err := acquireModule(u.ModulePath)
	if err != nil {
		return nil, problem("module", err, "Install the device's PKCS#11 library and name it by module-path; docs/keys says which, for each kind of device.")
	}
	says := m.path
	m.life.RLock()
	defer m.life.RUnlock()
	if info, err := m.c.GetInfo(); err == nil {
		says = fmt.Sprintf("%s: %q, version %d.%d", m.path, info.LibraryDescription, info.LibraryVersion.Major, info.LibraryVersion.Minor)
	}
	return m, Finding{Check: "module", State: StateOK, Says: says}
}

func diagnoseToken(m *module, u URI, opts Options) (p11.TokenInfo, Finding) {
	info, seen, err := lookToken(m, u, opts)
	if errors.Is(err, errAbsent) && m.reset(seen) == nil {
		info, _, err = lookToken(m, u, opts)
	}
	switch {
	case errors.Is(err, errAbsent):
		return info, problem("token", err, "Plug the token in, start the service that reaches it, or correct token= and serial= in the URI.")
	case errors.Is(err, signer.ErrKey):
		return info, problem("token", err, "Name one of them by serial= in the URI.")
	case err != nil:
		return info, problem("token", err, "Unplug the token and plug it in again.")
	}
	return info, tokenFinding(info)
}

func tokenFinding(info p11.TokenInfo) Finding {
	return Finding{Check: "token", State: StateOK, Says: fmt.Sprintf("%q: %q %q, serial %q", info.Label, info.ManufacturerID, info.Model, info.SerialNumber)}
}

func diagnosePIN(info p11.TokenInfo) Finding {
	if err := checkPINFlags(info); err != nil {
		do := "Unlock it with the SO PIN or PUK, by the token's own tool: ykman piv access unblock-pin, or pkcs11-tool --login --login-type so --init-pin."
		if info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0 {
			do = "Check what the pin-source holds, then log in once by hand with the token's own tool: a right PIN resets the count."
		}
		return problem("pin", err, do)
	}
	switch {
	case info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		return Finding{Check: "pin", State: StateWarning, Says: "a wrong PIN was entered since the last right one: fewer tries than usual are left, more than one (PKCS#11 has no number)",
			Do: "Check what the pin-source holds; a right PIN resets the count."}
	case info.Flags&p11.CKF_USER_PIN_INITIALIZED == 0 && info.Flags&p11.CKF_LOGIN_REQUIRED != 0:
		return problem("pin", errors.New("the token has no user PIN yet"), "Set one with the SO PIN, by the token's own tool.")
	}
	return Finding{Check: "pin", State: StateOK, Says: "not locked, no wrong PIN counted"}
}

// released is before any clock that is right.
var released = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// diagnoseClock compares this machine's clock with the token's, if it has one:
// records are refused whose time is more than maxClockSkew off.
func diagnoseClock(info p11.TokenInfo, now time.Time) Finding {
	if now.Before(released) {
		return problem("clock", fmt.Errorf("this machine's clock says %s, which is past", now.UTC().Format(time.RFC3339)),
			"Set the clock, and let NTP keep it.")
	}
	if info.Flags&p11.CKF_CLOCK_ON_TOKEN == 0 || len(info.UTCTime) < 14 {
		return Finding{Check: "clock", State: StateOK, Says: "this machine says " + now.UTC().Format(time.RFC3339) + "; the token has no clock to compare"}
	}
	token, err := time.Parse("20060102150405", info.UTCTime[:14])
	if err != nil {
		return Finding{Check: "clock", State: StateWarning, Says: "the token's clock cannot be read", Do: "Set it with the token's own tool."}
	}
	if skew := now.Sub(token).Abs(); skew > maxClockSkew {
		return Finding{Check: "clock", State: StateWarning, Says: fmt.Sprintf("this machine's clock and the token's are %s apart; records more than %s off are refused",
			skew.Round(time.Second), maxClockSkew), Do: "Find out which is wrong (timedatectl), and set it."}
	}
	return Finding{Check: "clock", State: StateOK, Says: "this machine's and the token's agree"}
}

func diagnoseKey(ctx context.Context, m *module, u URI, opts Options) []Finding {
	s, err := Open(ctx, u, opts)
	if err != nil {
		f := diagnoseOpen(err)
		if f.Check == "pin" {
			f.Says += triesLeft(m, u, opts)
		}
		return []Finding{f}
	}
	defer s.Close()
	key := Finding{Check: "key", State: StateOK, Says: fmt.Sprintf("%s, %s", s.Public().KeyID(), s.Algorithm())}
	start := time.Now()
	if _, err := s.Sign(ctx, []byte(TestMessage)); err != nil {
		return []Finding{key, diagnoseSign(err)}
	}
	return []Finding{key, {Check: "signature", State: StateOK, Says: fmt.Sprintf("signed and verified in %s", time.Since(start).Round(100*time.Microsecond))}}
}

// triesLeft is what the token says of its PIN after it refused one. PKCS#11
// knows locked, one, and fewer than usual; it has no number.
func triesLeft(m *module, u URI, opts Options) (says string) {
	told := make(chan string, 1)
	err := within(opts.CallTimeout, func() {
		info, _, err := lookToken(m, u, opts)
		switch {
		case err != nil:
			told <- ""
		case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
			told <- "; the PIN is locked now: unlock it with the SO PIN or PUK"
		case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
			told <- "; one try is left, which is not used: the next wrong PIN locks it"
		case info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
			told <- "; more than one try is left"
		default:
			told <- ""
		}
	})
	if err != nil {
		return ""
	}
	return <-told
}

func diagnoseOpen(err error) Finding {
	switch {
	case errors.Is(err, signer.ErrPIN):
		return problem("pin", err, "Correct the pin-source in the URI, or what it holds. The PIN is not tried again by itself.")
	case errors.Is(err, errMute):
		return problem("key", err, "Use another key of this token (kgctl key list --token URI), or make one that may sign (kgctl key generate).")
	case errors.Is(err, errNoMechanism):
		return problem("key", err, "Update the device's library or firmware, or use a key of another kind: docs/keys says which kinds each device signs with.")
	case errors.Is(err, signer.ErrKey):
		return problem("key", err, "Let the URI name exactly one private key that may sign: kgctl key list --token URI shows what the token has.")
	}
	return problem("token", err, "Unplug the token and plug it in again; see that no other program holds it.")
}

func diagnoseSign(err error) Finding {
	switch {
	case errors.Is(err, signer.ErrBadSignature):
		return problem("signature", err, "Do not use this device: what it signs does not verify. Look for an update of its library or firmware.")
	case errors.Is(err, signer.ErrPIN):
		return problem("pin", err, "Correct the pin-source in the URI, or what it holds.")
	case errors.Is(err, signer.ErrKey):
		return problem("key", err, "Use a key of another kind, or another algorithm= in the URI.")
	case errors.Is(err, ErrStuck), errors.Is(err, context.DeadlineExceeded):
		return problem("signature", err, "Touch the token when it blinks; otherwise unplug it and plug it in again.")
	}
	return problem("signature", err, "Unplug the token and plug it in again; see that no other program holds it.")
}
