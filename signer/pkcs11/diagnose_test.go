package pkcs11_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/test/faults"
)

// TestDiagnose: one thing is wrong at a time, and the doctor says which, and
// what to do.
func TestDiagnose(t *testing.T) {
	ill := []struct {
		name   string
		change func(*rig, *pkcs11.URI)
		check  string
		state  pkcs11.State
		says   string
		do     string
	}{
		{"module not found", func(_ *rig, u *pkcs11.URI) { u.ModulePath = "/nonexistent.so" }, "module", pkcs11.StateProblem, "not found", "Install"},
		{"not a module", func(r *rig, u *pkcs11.URI) { u.ModulePath = r.token.PINFile }, "module", pkcs11.StateProblem, "cannot be loaded", "Install"},
		{"module does not start", func(r *rig, _ *pkcs11.URI) {
			r.fail("C_Initialize", faults.Rule{Times: faults.Forever, Code: p11.CKR_GENERAL_ERROR})
		}, "module", pkcs11.StateProblem, "does not initialise", "Install"},
		{"module hangs", func(r *rig, _ *pkcs11.URI) { r.fail("C_GetSlotList", faults.Rule{Times: 1, Action: faults.Hang}) },
			"module", pkcs11.StateProblem, "does not return", "Unplug"},
		{"token absent", func(r *rig, _ *pkcs11.URI) { r.Absent.Set(faults.Absent) }, "token", pkcs11.StateProblem, "present: none", "Plug the token in"},
		{"other token", func(_ *rig, u *pkcs11.URI) { u.Token, u.Serial = "other", "" }, "token", pkcs11.StateProblem, `present: "faulty"`, "correct token="},
		{"PIN locked", pinLeft(0), "pin", pkcs11.StateProblem, "locked", "PUK"},
		{"one try left", pinLeft(1), "pin", pkcs11.StateProblem, "one try left", "by hand"},
		{"two tries left", pinLeft(2), "pin", pkcs11.StateWarning, "fewer tries", "resets the count"},
		{"PIN wrong", func(r *rig, _ *pkcs11.URI) { writePIN(r, "000000\n") }, "pin", pkcs11.StateProblem, "refused", "Correct the pin-source"},
		{"PIN wrong, of two", wrongPIN(2), "pin", pkcs11.StateProblem, "one try is left", "Correct the pin-source"},
		{"PIN wrong, of ten", wrongPIN(10), "pin", pkcs11.StateProblem, "more than one try is left", "Correct the pin-source"},
		{"PIN wrong, and locked by it", func(r *rig, u *pkcs11.URI) { wrongPIN(3)(r, u); r.HideFinalTry.Set(1); r.PINLeft.Set(1) },
			"pin", pkcs11.StateProblem, "locked now", "Correct the pin-source"},
		{"PIN file open to all", func(r *rig, _ *pkcs11.URI) { chmod(r, 0o644) }, "pin", pkcs11.StateProblem, "chmod 600", "Correct the pin-source"},
		{"no PIN source", func(_ *rig, u *pkcs11.URI) { u.PINSource = pkcs11.PINSource{} }, "pin", pkcs11.StateProblem, "pin-source=", "Correct the pin-source"},
		{"PIN to be changed", func(r *rig, _ *pkcs11.URI) { r.TokenFlags.Set(p11.CKF_USER_PIN_TO_BE_CHANGED) }, "pin", pkcs11.StateProblem, "changed first", "own tool"},
		{"clocks apart", func(r *rig, _ *pkcs11.URI) { r.ClockAhead.Set(3600) }, "clock", pkcs11.StateWarning, "apart; records more than 5m0s off", "timedatectl"},
		{"no such key", func(_ *rig, u *pkcs11.URI) { u.Object = "x" }, "key", pkcs11.StateProblem, `"k" (id=%01)`, "key list"},
		{"key may not sign", func(r *rig, u *pkcs11.URI) { u.Object, u.ID = "mute", nil }, "key", pkcs11.StateProblem, "CKA_SIGN is false", "key generate"},
		{"two keys match", func(r *rig, u *pkcs11.URI) { u.Object, u.ID = "", nil }, "key", pkcs11.StateProblem, "2 private keys match", "exactly one"},
		{"wrong algorithm", func(_ *rig, u *pkcs11.URI) { u.Algorithm = signer.Ed25519 }, "key", pkcs11.StateProblem, "does not fit", "exactly one"},
		{"mechanism missing", func(r *rig, _ *pkcs11.URI) { r.HideMechanism.Set(p11.CKM_ECDSA) }, "key", pkcs11.StateProblem, "does not offer CKM_ECDSA", "key of another kind"},
		{"signature is wrong", func(r *rig, _ *pkcs11.URI) { r.Signature.Set(faults.Corrupt) }, "signature", pkcs11.StateProblem, "does not verify", "Do not use"},
		{"touch never comes", func(r *rig, _ *pkcs11.URI) { r.fail("C_Sign", faults.Rule{Times: 1, Action: faults.Hang}) },
			"signature", pkcs11.StateProblem, "does not return", "Touch"},
		{"device fails", func(r *rig, _ *pkcs11.URI) {
			r.fail("C_Sign", faults.Rule{Times: faults.Forever, Code: p11.CKR_DEVICE_ERROR})
		}, "signature", pkcs11.StateProblem, "CKR_DEVICE_ERROR", "Unplug"},
	}
	for _, c := range ill {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, signer.ECDSAP256SHA256)
			if strings.Contains(c.name, "may not sign") || strings.Contains(c.name, "two keys") {
				muteKey(t, r)
			}
			u := r.key.URI
			c.change(r, &u)
			limit := 20 * time.Second
			if strings.Contains(c.says, "does not return") {
				limit = time.Second
			}
			found := pkcs11.Diagnose(within(t, 2*limit), u, time.Now(), pkcs11.Options{CallTimeout: limit})
			r.fail("C_GetSlotList", faults.Rule{})
			r.fail("C_Sign", faults.Rule{})
			moduleAtRest(t, r.Path)
			last := found[len(found)-1]
			if c.state == pkcs11.StateWarning {
				if last.Check != "signature" || last.State != pkcs11.StateOK {
					t.Errorf("a warning keeps from signing: %+v", last)
				}
				for _, f := range found {
					if f.State == pkcs11.StateWarning {
						last = f
					}
				}
			}
			if last.Check != c.check || last.State != c.state || !strings.Contains(last.Says, c.says) || !strings.Contains(last.Do, c.do) {
				t.Errorf("got %+v\nwant %s, %s that says %q, do %q", found, c.check, c.state, c.says, c.do)
			}
		})
	}
}

// TestDiagnoseHealthy: every check is there and ok, and the PIN is sent once.
func TestDiagnoseHealthy(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	before := r.calls("C_Login")
	found := pkcs11.Diagnose(within(t, 20*time.Second), r.key.URI, time.Now(), pkcs11.Options{})
	var checks []string
	for _, f := range found {
		checks = append(checks, f.Check)
		if f.State != pkcs11.StateOK || f.Do != "" {
			t.Errorf("%+v", f)
		}
	}
	if got := strings.Join(checks, " "); got != "module token pin clock key signature" {
		t.Errorf("checks: %s", got)
	}
	if n := r.calls("C_Login") - before; n != 1 {
		t.Errorf("%d logins", n)
	}
	if found := pkcs11.Diagnose(within(t, 20*time.Second), r.key.URI, time.Unix(0, 0), pkcs11.Options{}); found[len(found)-1].Check != "clock" {
		t.Errorf("a clock that says 1970: %+v", found)
	}
}

func TestDiagnoseTwoTokens(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	away, err := softhsm.New(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	second := newToken(t, away, "faulty")
	home := filepath.Dir(filepath.Dir(r.token.PINFile))
	if err := os.CopyFS(filepath.Join(home, "tokens"), os.DirFS(away.TokenDir())); err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.New(home); err != nil {
		t.Fatal(err)
	}
	u := r.key.URI
	u.Serial = ""
	found := pkcs11.Diagnose(within(t, 20*time.Second), u, time.Now(), pkcs11.Options{})
	last := found[len(found)-1]
	if last.Check != "token" || !strings.Contains(last.Says, second.Serial) || !strings.Contains(last.Says, r.token.Serial) || !strings.Contains(last.Do, "serial=") {
		t.Errorf("got %+v", found)
	}
}

func pinLeft(n uint32) func(*rig, *pkcs11.URI) {
	return func(r *rig, _ *pkcs11.URI) {
		r.PINTries.Set(3)
		r.PINLeft.Set(n)
	}
}

// wrongPIN: the pin-source holds a wrong one, and the token takes so many.
func wrongPIN(left uint32) func(*rig, *pkcs11.URI) {
	return func(r *rig, _ *pkcs11.URI) {
		writePIN(r, "000000\n")
		r.PINTries.Set(10)
		r.PINLeft.Set(left)
	}
}

func writePIN(r *rig, pin string) {
	if err := os.WriteFile(r.token.PINFile, []byte(pin), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func chmod(r *rig, mode os.FileMode) {
	if err := os.Chmod(r.token.PINFile, mode); err != nil {
		r.t.Fatal(err)
	}
}

// muteKey adds a key pair that may not sign.
func muteKey(t *testing.T, r *rig) {
	t.Helper()
	pin, err := r.token.PIN()
	if err != nil {
		t.Fatal(err)
	}
	inSession(t, r.Path, func(c *p11.Ctx, _ uint, session p11.SessionHandle) error {
		if err := c.Login(session, p11.CKU_USER, pin); err != nil {
			return err
		}
		common := []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, "mute"), p11.NewAttribute(p11.CKA_ID, []byte{2})}
		public := append(common[:3:3], p11.NewAttribute(p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}))
		private := append(common[:3:3], p11.NewAttribute(p11.CKA_SIGN, false), p11.NewAttribute(p11.CKA_DERIVE, true), p11.NewAttribute(p11.CKA_PRIVATE, true))
		_, _, err := c.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)}, public, private)
		return err
	})
}

// moduleAtRest waits until what hung has come round and given the module up. It
// does not ask the module, which may crash when it is asked while it finalizes.
func moduleAtRest(t *testing.T, path string) {
	t.Helper()
	eventually(t, "the module is finalized", func() bool { return pkcs11.Finalized(t, path) })
}

// TestNoCallBesideFinalize: SoftHSM2 crashes when it is called, for whatever,
// while another thread finalizes it. Whoever looks at a module waits for those
// who restart it.
func TestNoCallBesideFinalize(t *testing.T) {
	key := newKey(t, newToken(t, newEnv(t), "busy"), "k", 1, signer.ECDSAP256SHA256)
	s := openKey(t, key.URI, pkcs11.Options{})
	end := time.Now().Add(time.Second)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for time.Now().Before(end) {
				pkcs11.DiagnoseModule(key.URI)
			}
		})
	}
	for time.Now().Before(end) {
		pkcs11.ForgetLogin(t, key.URI.ModulePath)
	}
	group.Wait()
	mustSign(t, s)
}

// TestTokensWordsAreQuoted: a card in the reader cannot write to the terminal.
func TestTokensWordsAreQuoted(t *testing.T) {
	const evil = "\x1b]0;x\a\u202e"
	for _, text := range pkcs11.SaysOfToken(p11.TokenInfo{Label: evil, ManufacturerID: evil, Model: evil, SerialNumber: evil}) {
		if strings.ContainsAny(text, "\x1b\a\u202e") {
			t.Errorf("unquoted: %q", text)
		}
	}
}
