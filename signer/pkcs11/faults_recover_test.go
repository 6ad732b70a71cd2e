package pkcs11_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/signer/signertest"
	"github.com/kernelgate/kernelgate/test/faults"
)

// outage is a way in which a token is lost; the table of docs/keys/README.md.
type outage struct {
	name       string
	begin, end func(r *rig)
	healed     bool // the caller never sees it
}

func outages() []outage {
	none := func(*rig) {}
	fails := func(function string, code uint32) (begin, end func(*rig)) {
		return func(r *rig) { r.fail(function, faults.Rule{Times: faults.Forever, Code: code}) },
			func(r *rig) { r.fail(function, faults.Rule{}) }
	}
	away := func(how uint32) (begin, end func(*rig)) {
		return func(r *rig) { r.Absent.Set(how) }, func(r *rig) { r.Absent.Set(faults.Present) }
	}
	list := []outage{
		{name: "idle sessions expire (CKR_SESSION_HANDLE_INVALID)", begin: idle(faults.IdleSession), end: none, healed: true},
		{name: "the token ends every session and the login", begin: idle(faults.IdleToken), end: none, healed: true},
	}
	add := func(name string, begin, end func(*rig)) {
		list = append(list, outage{name: name, begin: begin, end: end})
	}
	begin, end := away(faults.Absent)
	add("pulled and put back (CKR_DEVICE_REMOVED)", begin, end)
	begin, end = away(faults.AbsentUntilInitialize)
	add("the same, and the module must be initialised again", begin, end)
	for _, c := range []struct {
		name string
		code uint32
	}{{"CKR_DEVICE_ERROR", p11.CKR_DEVICE_ERROR}, {"CKR_OBJECT_HANDLE_INVALID", p11.CKR_OBJECT_HANDLE_INVALID},
		{"CKR_USER_NOT_LOGGED_IN", p11.CKR_USER_NOT_LOGGED_IN}, {"CKR_TOKEN_NOT_PRESENT", p11.CKR_TOKEN_NOT_PRESENT},
		{"CKR_GENERAL_ERROR", p11.CKR_GENERAL_ERROR}, {"a vendor's own code", p11.CKR_VENDOR_DEFINED + 7}} {
		begin, end = fails("C_SignInit", c.code)
		add("C_SignInit gives "+c.name, begin, end)
	}
	add("the same, and C_Initialize fails too", func(r *rig) {
		r.fail("C_Initialize", faults.Rule{Times: faults.Forever, Code: p11.CKR_DEVICE_ERROR})
		begin(r)
	}, func(r *rig) {
		r.fail("C_Initialize", faults.Rule{})
		end(r)
	})
	for _, function := range []string{"C_OpenSession", "C_GetSlotList", "C_Login"} {
		fail, repair := fails(function, p11.CKR_DEVICE_ERROR)
		add("the login is lost, and "+function+" gives CKR_DEVICE_ERROR",
			func(r *rig) { idle(faults.IdleToken)(r); fail(r) }, repair)
	}
	return list
}

// idle lets the sessions expire once, or the token with all of its sessions.
func idle(scope uint32) func(*rig) {
	return func(r *rig) {
		r.t.Helper()
		r.IdleScope.Set(scope)
		r.IdleMillis.Set(100)
		time.Sleep(130 * time.Millisecond)
		if scope == faults.IdleSession {
			return // each session's end is seen by its next call
		}
		if _, err := p11.New(r.Path).GetSlotList(true); err != nil { // any call ends the token's
			r.t.Error(err)
		}
		r.IdleMillis.Set(0)
	}
}

// TestRecoveryTimes measures how long after the end of each outage the signer
// signs again, and prints the table that docs/keys/README.md has.
func TestRecoveryTimes(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	s := openKey(t, r.key.URI, pkcs11.Options{KeepAlive: time.Hour})
	t.Logf("| what happens | says meanwhile | signs again after |")
	for _, o := range outages() {
		var times []time.Duration
		says := "nothing: the signature comes"
		for range 5 {
			mustSign(t, s)
			o.begin(r)
			if !o.healed {
				says = refusedFor(t, s, 100*time.Millisecond, o.name)
			}
			o.end(r)
			start := time.Now()
			if o.healed {
				mustSign(t, s)
				r.IdleMillis.Set(0)
			} else {
				r.IdleMillis.Set(0)
				backAfter(t, s)
			}
			times = append(times, time.Since(start))
		}
		t.Logf("| %s | %s | %.1f ms |", o.name, says, float64(slices.Max(times).Microseconds())/1000)
		signertest.CheckRecovery(t, o.name, recoveryLimit, times)
	}
	if n := r.OpenSearches.Get(); n != 0 {
		t.Errorf("%d searches were never ended", n)
	}
}

// refusedFor asks all the while; each answer says that the token is away.
func refusedFor(t *testing.T, s signer.Signer, d time.Duration, name string) string {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		start := time.Now()
		if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, signer.ErrUnavailable) {
			t.Fatalf("%s: got %v, want ErrUnavailable", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("%s: the answer took %v", name, took)
		}
	}
	return "unavailable"
}

// TestKeepAlive: a token that ends idle logins keeps ours.
func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		every  time.Duration
		logins uint32
	}{{20 * time.Millisecond, 0}, {time.Hour, 1}} {
		r := newRig(t, signer.ECDSAP256SHA256)
		s := openKey(t, r.key.URI, pkcs11.Options{KeepAlive: c.every})
		r.IdleScope.Set(faults.IdleToken)
		r.IdleMillis.Set(1000) // far more than a busy machine is away
		before := r.calls("C_Login")
		time.Sleep(2 * time.Second)
		mustSign(t, s)
		if n := r.calls("C_Login") - before; n != c.logins {
			t.Errorf("keep-alive every %v: %d new logins, want %d", c.every, n, c.logins)
		}
		r.IdleMillis.Set(0)
		s.Close()
	}
}

// TestSessionCaps: by the token's own word, and by a cap that it does not tell.
func TestSessionCaps(t *testing.T) {
	for _, hidden := range []uint32{0, 1} {
		for _, most := range []uint32{1, 2, 3} {
			r := newRig(t, signer.ECDSAP256SHA256)
			r.MaxSessions.Set(most)
			r.HideCap.Set(hidden)
			r.calls("C_OpenSession") // counted from now on
			s := openKey(t, r.key.URI, pkcs11.Options{KeepAlive: time.Hour})
			var group sync.WaitGroup
			for range 16 {
				group.Go(func() {
					for range 4 {
						if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); err != nil {
							t.Errorf("cap %d, hidden %d: %v", most, hidden, err)
						}
					}
				})
			}
			group.Wait()
			if n := r.MostSessions.Get(); n > most {
				t.Errorf("cap %d: %d sessions were open", most, n)
			}
			if hidden == 0 && most > 1 {
				if n := r.calls("C_OpenSession"); n > most {
					t.Errorf("cap %d: %d sessions were asked for", most, n)
				}
			}
			s.Close()
		}
	}
}

// TestAlwaysAuthenticate: SignInit, login and Sign stay together on one
// session, under load, whatever the key's attribute says.
func TestAlwaysAuthenticate(t *testing.T) {
	for name, c := range map[string]struct{ mode, logins uint32 }{
		"told":               {faults.Always, 1},
		"untold":             {faults.AlwaysUntold, 1},
		"told but not so":    {faults.OnlyTold, 1},
		"it does not happen": {faults.Never, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, signer.ECDSAP256SHA256)
			r.Always.Set(c.mode)
			s := openKey(t, r.key.URI, pkcs11.Options{KeepAlive: time.Hour})
			mustSign(t, s) // learns what is not told
			before := r.calls("C_Login")
			const callers, each = 8, 8
			var group sync.WaitGroup
			for range callers {
				group.Go(func() {
					for range each {
						if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			if n := r.calls("C_Login") - before; n != c.logins*callers*each {
				t.Errorf("%d logins for %d signatures", n, callers*each)
			}
			// The login is lost under it: both kinds are made again.
			idle(faults.IdleToken)(r)
			mustSign(t, s)
			r.IdleMillis.Set(0)
		})
	}
}

// TestAlwaysAuthenticateNeverRetriesAPIN: a PIN that is refused in the middle.
func TestAlwaysAuthenticateNeverRetriesAPIN(t *testing.T) {
	for _, mode := range []uint32{faults.Always, faults.AlwaysUntold} {
		r := newRig(t, signer.ECDSAP256SHA256)
		s := openKey(t, r.key.URI, pkcs11.Options{KeepAlive: time.Hour})
		mustSign(t, s)
		r.Always.Set(mode)
		r.fail("C_Login", faults.Rule{Times: faults.Forever, Code: p11.CKR_PIN_INCORRECT})
		before := r.calls("C_Login")
		for range 5 {
			if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, signer.ErrPIN) {
				t.Fatalf("got %v, want ErrPIN", err)
			}
		}
		if n := r.calls("C_Login") - before; n != 1 {
			t.Errorf("the PIN was sent %d times, want once", n)
		}
		s.Close()
	}
}

// TestHangInEveryCall: callers have their answer in time, the process is told
// once, and a module that comes round is used again.
func TestHangInEveryCall(t *testing.T) {
	for _, function := range []string{"C_SignInit", "C_Sign", "C_Login", "C_OpenSession", "C_GetTokenInfo", "C_FindObjectsInit", "C_GenerateRandom"} {
		t.Run(function, func(t *testing.T) {
			r := newRig(t, signer.ECDSAP256SHA256)
			var told atomic.Int32
			opts := pkcs11.Options{KeepAlive: time.Hour, CallTimeout: 500 * time.Millisecond, OnStuck: func() { told.Add(1) }}
			if function == "C_GenerateRandom" {
				opts.KeepAlive = 50 * time.Millisecond
			}
			s := openKey(t, r.key.URI, opts)
			mustSign(t, s)
			idle(faults.IdleToken)(r)
			r.IdleMillis.Set(0)
			pkcs11.ForgetLogin(t, r.key.URI.ModulePath)
			if function == "C_GenerateRandom" {
				mustSign(t, s)
			}
			r.fail(function, faults.Rule{Times: 1, Action: faults.Hang})
			defer r.fail(function, faults.Rule{})
			var group sync.WaitGroup
			for range 32 {
				group.Go(func() {
					start := time.Now()
					_, err := s.Sign(within(t, 100*time.Millisecond), []byte("m"))
					if err != nil && !errors.Is(err, signer.ErrUnavailable) && !errors.Is(err, signer.ErrBusy) {
						t.Errorf("got %v", err)
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("the answer took %v, deadline 100ms", took)
					}
				})
			}
			group.Wait()
			eventually(t, "the process is told that a call is stuck", func() bool { return told.Load() > 0 })
			if _, err := s.Sign(within(t, 20*time.Second), []byte("m")); !errors.Is(err, pkcs11.ErrStuck) {
				t.Errorf("got %v, want ErrStuck", err)
			}
			r.fail(function, faults.Rule{})
			backAfter(t, s)
		})
	}
}

// TestFaultSuite: the cases that every backend passes.
func TestFaultSuite(t *testing.T) {
	for _, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.Ed25519, signer.RSAPSSSHA256} {
		t.Run(string(a), func(t *testing.T) {
			r := newRig(t, a)
			number := func(n *faults.Number, value uint32) func(*testing.T, bool) {
				return func(_ *testing.T, on bool) {
					if !on {
						n.Set(0)
					} else {
						n.Set(value)
					}
				}
			}
			signertest.RunFaults(t, signertest.Device{
				Open:    func(t *testing.T, _ signer.Algorithm) signer.Signer { return openUnclosed(t, r.key.URI) },
				Away:    number(&r.Absent, faults.AbsentUntilInitialize),
				Corrupt: number(&r.Signature, faults.Corrupt),
				Hang: func(_ *testing.T, on bool) {
					rule := faults.Rule{}
					if on {
						rule = faults.Rule{Times: faults.Forever, Action: faults.Hang}
					}
					r.fail("C_Sign", rule)
				},
			}, a)
		})
	}
}

func openUnclosed(t *testing.T, u pkcs11.URI) signer.Signer {
	t.Helper()
	s, err := pkcs11.Open(within(t, 10*time.Second), u, pkcs11.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
