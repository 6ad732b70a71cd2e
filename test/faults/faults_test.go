package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/test/faults"
)

type rig struct {
	*faults.Module
	c       *p11.Ctx
	slot    uint
	session p11.SessionHandle
	key     p11.ObjectHandle
	pin     string
}

// newRig is the module around SoftHSM2 with one P-256 key, logged in.
func newRig(t *testing.T) *rig {
	t.Helper()
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	env, err := softhsm.New(filepath.Join(t.TempDir(), "hsm"))
	must(t, err)
	token, err := env.CreateToken("rig")
	must(t, err)
	_, err = token.GenerateKey("k", []byte{1}, signer.ECDSAP256SHA256)
	must(t, err)
	m, err := faults.Build(t.TempDir(), env.Module)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	r := &rig{Module: m, c: p11.New(m.Path)}
	if r.c == nil {
		t.Fatal("the module does not load")
	}
	r.pin, err = token.PIN()
	must(t, err)
	must(t, r.c.Initialize())
	t.Cleanup(func() { r.c.Finalize() })
	slots, err := r.c.GetSlotList(true)
	must(t, err)
	r.slot = slots[0]
	r.login(t)
	return r
}

func (r *rig) login(t *testing.T) {
	t.Helper()
	var err error
	r.session, err = r.c.OpenSession(r.slot, p11.CKF_SERIAL_SESSION)
	must(t, err)
	must(t, r.c.Login(r.session, p11.CKU_USER, r.pin))
	must(t, r.c.FindObjectsInit(r.session, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}))
	found, _, err := r.c.FindObjects(r.session, 1)
	must(t, err)
	must(t, r.c.FindObjectsFinal(r.session))
	r.key = found[0]
}

func (r *rig) sign() ([]byte, error) {
	if err := r.c.SignInit(r.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}, r.key); err != nil {
		return nil, err
	}
	return r.c.Sign(r.session, make([]byte, 32))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code uint) {
	t.Helper()
	if !errors.Is(err, p11.Error(code)) {
		t.Fatalf("got %v, want %v", err, p11.Error(code))
	}
}

func TestCodesAreReturnedAndCounted(t *testing.T) {
	r := newRig(t)
	must(t, r.Fail("C_SignInit", faults.Rule{Skip: 1, Times: 2, Code: p11.CKR_DEVICE_ERROR}))
	for i, want := range []bool{true, false, false, true} {
		if _, err := r.sign(); (err == nil) != want {
			t.Fatalf("call %d: %v", i, err)
		} else if !want {
			wantCode(t, err, p11.CKR_DEVICE_ERROR)
		}
	}
	if n, err := r.Calls("C_SignInit"); err != nil || n != 4 {
		t.Fatalf("%d calls counted, want 4: %v", n, err)
	}
	must(t, r.Fail("C_GenerateRandom", faults.Rule{Times: 1, Action: faults.ReturnAfter, Code: p11.CKR_DEVICE_REMOVED}))
	_, err := r.c.GenerateRandom(r.session, 8)
	wantCode(t, err, p11.CKR_DEVICE_REMOVED)
	must(t, r.Fail("C_GenerateRandom", faults.Rule{Times: faults.Forever, Action: faults.Delay, Millis: 50}))
	start := time.Now()
	_, err = r.c.GenerateRandom(r.session, 8)
	must(t, err)
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Fatalf("a delay of 50ms took %v", took)
	}
}

func TestHangEndsWhenTheRuleIsCleared(t *testing.T) {
	r := newRig(t)
	must(t, r.Fail("C_Sign", faults.Rule{Times: 1, Action: faults.Hang}))
	done := make(chan error, 1)
	go func() {
		_, err := r.sign()
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not hang: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, r.Fail("C_Sign", faults.Rule{}))
	must(t, <-done)
}

func TestRemovalVoidsSessions(t *testing.T) {
	r := newRig(t)
	r.Absent.Set(faults.Absent)
	_, err := r.sign()
	wantCode(t, err, p11.CKR_DEVICE_REMOVED)
	slots, err := r.c.GetSlotList(true)
	if err != nil || len(slots) != 0 {
		t.Fatalf("%d slots, %v", len(slots), err)
	}
	event := <-r.c.WaitForSlotEvent(p11.CKF_DONT_BLOCK)
	if event.SlotID != r.slot {
		t.Fatalf("event of slot %d, want %d", event.SlotID, r.slot)
	}
	_, err = r.c.GetTokenInfo(r.slot)
	wantCode(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	r.Absent.Set(faults.Present)
	_, err = r.sign()
	wantCode(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	r.login(t)
	_, err = r.sign()
	must(t, err)

	r.Absent.Set(faults.AbsentUntilInitialize)
	_, err = r.sign()
	wantCode(t, err, p11.CKR_DEVICE_REMOVED)
	r.Absent.Set(faults.Present)
	_, err = r.sign()
	wantCode(t, err, p11.CKR_DEVICE_REMOVED)
	must(t, r.c.Finalize())
	must(t, r.c.Initialize())
	r.login(t)
	_, err = r.sign()
	must(t, err)
}

func TestPINLocksAfterItsTries(t *testing.T) {
	r := newRig(t)
	must(t, r.c.Logout(r.session))
	r.PINTries.Set(2)
	r.PINLeft.Set(2)
	for _, flag := range []uint{p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED} {
		wantCode(t, r.c.Login(r.session, p11.CKU_USER, "000000"), p11.CKR_PIN_INCORRECT)
		info, err := r.c.GetTokenInfo(r.slot)
		must(t, err)
		if info.Flags&flag == 0 || info.Flags&p11.CKF_USER_PIN_COUNT_LOW == 0 {
			t.Fatalf("flags %x", info.Flags)
		}
	}
	wantCode(t, r.c.Login(r.session, p11.CKU_USER, r.pin), p11.CKR_PIN_LOCKED)
}

func TestKeyThatWantsItsPINEachTime(t *testing.T) {
	r := newRig(t)
	r.Always.Set(faults.AlwaysUntold)
	_, err := r.sign()
	wantCode(t, err, p11.CKR_USER_NOT_LOGGED_IN)
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}
	for range 2 { // one login is for one signature
		must(t, r.c.SignInit(r.session, mechanism, r.key))
		wantCode(t, r.c.Login(r.session, p11.CKU_CONTEXT_SPECIFIC, "000000"), p11.CKR_PIN_INCORRECT)
		must(t, r.c.Login(r.session, p11.CKU_CONTEXT_SPECIFIC, r.pin))
		_, err = r.c.Sign(r.session, make([]byte, 32))
		must(t, err)
		_, err = r.sign()
		wantCode(t, err, p11.CKR_USER_NOT_LOGGED_IN)
	}
}

func TestSessionsAreFewAndExpire(t *testing.T) {
	r := newRig(t)
	r.MaxSessions.Set(2)
	_, err := r.c.OpenSession(r.slot, p11.CKF_SERIAL_SESSION)
	must(t, err)
	_, err = r.c.OpenSession(r.slot, p11.CKF_SERIAL_SESSION)
	wantCode(t, err, p11.CKR_SESSION_COUNT)
	if r.OpenSessions.Get() != 2 || r.MostSessions.Get() != 2 {
		t.Fatalf("%d sessions, %d at most", r.OpenSessions.Get(), r.MostSessions.Get())
	}
	r.IdleMillis.Set(20)
	time.Sleep(50 * time.Millisecond)
	_, err = r.sign()
	wantCode(t, err, p11.CKR_SESSION_HANDLE_INVALID)
}
