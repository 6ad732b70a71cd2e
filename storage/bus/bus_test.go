package bus_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/bus"
	"github.com/kernelgate/kernelgate/workflow"
)

func TestEveryMessageVerifiesByItself(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	l.grow(300)
	b := newBus(t, l, config(s)).start(t)
	l.caughtUp()
	l.delegate() // a new event key
	l.grow(40)
	l.caughtUp()
	js := s.consumer()
	l.whole(js)
	// A gateway that goes on later finds who introduced the key.
	b.stop()
	l.grow(5)
	newBus(t, l, config(s)).start(t)
	l.caughtUp()
	l.whole(js)
	info, err := js.Stream(t.Context(), stream)
	check(t, err)
	if c := info.CachedInfo().Config; !c.DenyDelete || !c.DenyPurge || c.Storage != jetstream.FileStorage {
		t.Errorf("the stream was made as %+v", c)
	}
}

func TestOnlyWhatIsSealedIsPublished(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	l.caughtUp()
	before := l.size()
	l.append(workflow.EventDraft{Type: "upgrade.created", Actor: "ops"})
	time.Sleep(200 * time.Millisecond)
	if got := l.cursor(); got != before {
		t.Errorf("the cursor is at %d, where %d events are sealed", got, before)
	}
	l.seal()
	l.caughtUp()
	l.whole(s.consumer())
}

func TestCrashBetweenPublishAndCursor(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	l.grow(50)
	b := newBus(t, l, config(s)).start(t)
	l.caughtUp()
	b.stop()
	// As if it had died before any of these cursors were written.
	for _, at := range []int64{l.size() - 1, 7, 0} {
		check(t, l.Update(t.Context(), func(tx workflow.Tx) error { return tx.PutCursor(bus.CursorNext, at) }))
		l.grow(10)
		b = newBus(t, l, config(s)).start(t)
		l.caughtUp()
		b.stop()
		l.whole(s.consumer())
	}
}

// failing is a store whose writes fail while it is told so.
type failing struct {
	*log
	mu   sync.Mutex
	fail bool
}

var errDisk = errors.New("disk I/O error")

func (f *failing) set(fail bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *failing) Update(ctx context.Context, do func(workflow.Tx) error) error {
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	return f.log.Update(ctx, func(tx workflow.Tx) error {
		next, _ := tx.Cursor(bus.CursorNext)
		if err := do(tx); err != nil {
			return err
		}
		if after, err := tx.Cursor(bus.CursorNext); err != nil || fail && after != next {
			return errors.Join(err, errDisk)
		}
		return nil
	})
}

func TestTheStoreRefusesTheCursor(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	l.grow(20)
	store := &failing{log: l, fail: true}
	b := newBus(t, store, config(s)).start(t)
	eventually(t, "the failure is told", func() bool { lag, err := b.Lag(t.Context()); return err == nil && errors.Is(lag.Err, errDisk) })
	store.set(false)
	l.caughtUp()
	l.whole(s.consumer())
}

func TestServerIsKilledInTheMiddle(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	for range 4 {
		l.grow(400)
		eventually(t, "some are published", func() bool { return l.cursor() > l.size()-390 })
		s.kill()
		l.grow(30)
		s.start()
	}
	l.caughtUp()
	l.whole(s.consumer())
}

func TestServerIsAwayForAWhile(t *testing.T) {
	s := newServer(t, "")
	l := newLog(t)
	c := config(s)
	c.MaxLag = 20
	b := newBus(t, l, c).start(t)
	check(t, b.Admit(t.Context()))
	l.grow(30)
	eventually(t, "new work is refused", func() bool { return errors.Is(b.Admit(t.Context()), workflow.ErrHeld) })
	err := b.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "32 events") || !strings.Contains(err.Error(), "no servers available") {
		t.Errorf("told is %v", err)
	}
	if err := b.Admit(t.Context()); strings.Contains(err.Error(), "no servers available") {
		t.Errorf("strangers are told %v", err)
	}
	s.start()
	eventually(t, "new work is taken", func() bool { return b.Admit(t.Context()) == nil })
	l.caughtUp()
	l.whole(s.consumer())
}

func TestAnOldEventHoldsNewWork(t *testing.T) {
	l := newLog(t)
	var mu sync.Mutex
	now := time.Now()
	c := bus.Config{URL: "nats://127.0.0.1:1", Stream: stream, Replicas: 1, MaxLag: 1000, MaxDelay: time.Minute}
	b := newBus(t, l, c)
	b.Hurry(time.Second, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	check(t, b.Admit(t.Context()))
	mu.Lock()
	now = now.Add(2 * time.Minute)
	mu.Unlock()
	eventually(t, "new work is refused", func() bool { return errors.Is(b.Admit(t.Context()), workflow.ErrHeld) })
}

func TestStreamIsDeleted(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	l.grow(60)
	l.caughtUp()
	js := s.consumer()
	check(t, js.DeleteStream(t.Context(), stream))
	eventually(t, "the stream is there again, whole", func() bool {
		found, err := js.Stream(t.Context(), stream)
		return err == nil && found.CachedInfo().State.Msgs == uint64(int(l.size())+l.records+1)
	})
	l.grow(10)
	l.caughtUp()
	l.whole(js)
}

// A server acknowledges before its disk has what it acknowledges.
func TestServerLosesWhatItAcknowledged(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	l.grow(30)
	l.caughtUp()
	s.kill()
	copyDir(t, filepath.Join(s.dir, "js"), filepath.Join(s.dir, "old"))
	s.start()
	l.grow(40)
	l.caughtUp()
	s.kill()
	check(t, os.RemoveAll(filepath.Join(s.dir, "js")))
	copyDir(t, filepath.Join(s.dir, "old"), filepath.Join(s.dir, "js"))
	s.start()
	js := s.consumer()
	eventually(t, "the stream is whole again", func() bool {
		found, err := js.Stream(t.Context(), stream)
		return err == nil && found.CachedInfo().State.Msgs == uint64(int(l.size())+l.records+1)
	})
	l.whole(js)
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	check(t, filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil || e.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(to, rel), 0o700))
		}
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}))
}

func TestSlowServer(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	b := newBus(t, l, config(s))
	b.Hurry(150*time.Millisecond, nil)
	b.start(t)
	l.caughtUp()
	for range 3 {
		s.freeze()
		l.grow(200)
		eventually(t, "the failure is told", func() bool { lag, err := b.Lag(t.Context()); return err == nil && lag.Err != nil })
		s.thaw()
		l.caughtUp()
	}
	l.whole(s.consumer())
}

func TestTwoGatewaysPublish(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	first := newBus(t, l, config(s)).start(t)
	newBus(t, l, config(s)).start(t)
	for range 5 {
		l.grow(50)
		time.Sleep(20 * time.Millisecond)
	}
	l.caughtUp()
	first.stop() // gives its lease up
	l.grow(50)
	l.caughtUp()
	l.whole(s.consumer())
}

// A gateway that stands still beyond its lease, and goes on, mixes nothing in.
func TestTwoGatewaysBothThinkItIsTheirTurn(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	for range 2 {
		b := newBus(t, l, config(s))
		// To each the other's lease has always just ended.
		start := time.Now()
		b.Hurry(5*time.Second, func() time.Time {
			rounds := time.Since(start).Milliseconds() / 5
			return time.Now().Add(time.Duration(rounds) * 100 * time.Hour)
		})
		b.start(t)
	}
	for range 10 {
		l.grow(60)
		time.Sleep(10 * time.Millisecond)
	}
	l.caughtUp()
	l.whole(s.consumer())
}

// A session that is wrong about the stream's length leaves no message out.
func TestOutOfTurn(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	b := newBus(t, l, config(s))
	js := s.consumer()
	right, err := b.Turn(t.Context(), js)
	check(t, err)
	l.grow(30)
	check(t, right.Publish(t.Context()))
	wrong, err := b.Turn(t.Context(), js)
	check(t, err)
	wrong.Misread(20)
	l.grow(90)
	if err := wrong.Publish(t.Context()); err == nil {
		t.Error("a message out of turn is taken")
	}
	for l.cursor() < l.size() {
		check(t, right.Publish(t.Context()))
	}
	l.whole(js)
}

func TestCredentials(t *testing.T) {
	right, err := nkeys.CreateUser()
	check(t, err)
	public, err := right.PublicKey()
	check(t, err)
	wrong, err := nkeys.CreateUser()
	check(t, err)
	file := filepath.Join(t.TempDir(), "seed")
	write := func(key nkeys.KeyPair) {
		seed, err := key.Seed()
		check(t, err)
		check(t, os.WriteFile(file, append(seed, '\n'), 0o600))
	}
	s := newServer(t, `authorization { users: [ {nkey: "`+public+`"} ] }`)
	s.start()
	l := newLog(t)
	c := config(s)
	c.Credentials = file
	write(wrong)
	b := newBus(t, l, c).start(t)
	eventually(t, "the refusal is told", func() bool {
		lag, err := b.Lag(t.Context())
		return err == nil && lag.Err != nil && strings.Contains(lag.Err.Error(), "Authorization Violation")
	})
	check(t, os.WriteFile(file, []byte("nothing of the kind"), 0o600))
	eventually(t, "a bad file is told", func() bool {
		lag, err := b.Lag(t.Context())
		return err == nil && lag.Err != nil && strings.Contains(lag.Err.Error(), "neither a NATS credentials file nor")
	})
	write(right)
	l.caughtUp()
	l.whole(s.consumer(nats.Nkey(public, right.Sign)))
}

func TestLackingPermissionIsTold(t *testing.T) {
	s := newServer(t, `authorization { users: [ {user: "admin", password: "a"}, {user: "kg", password: "k", permissions: { publish: { deny: "kernelgate.>" } } } ], }
no_auth_user: kg`)
	s.start()
	l := newLog(t)
	b := newBus(t, l, config(s))
	b.Hurry(200*time.Millisecond, nil)
	b.start(t)
	eventually(t, "the server's word is told", func() bool {
		lag, err := b.Lag(t.Context())
		return err == nil && lag.Err != nil && strings.Contains(strings.ToLower(lag.Err.Error()), "permissions violation")
	})
	if l.cursor() != 0 {
		t.Errorf("the cursor moved to %d", l.cursor())
	}
}

func TestAForeignStreamIsRefused(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	l.grow(20)
	b := newBus(t, l, config(s)).start(t)
	l.caughtUp()
	b.stop()
	js := s.consumer()
	told := func(name string, l *log, want string) {
		t.Helper()
		b := newBus(t, l, config(s)).start(t)
		defer b.stop()
		eventually(t, name, func() bool {
			lag, err := b.Lag(t.Context())
			return err == nil && lag.Err != nil && strings.Contains(lag.Err.Error(), want)
		})
	}
	// An older copy of the store: its log ends before the stream does.
	told("the older store", openLog(t, filepath.Join(t.TempDir(), "old.db"), l.fixture), "the store is an older copy")
	other := openLog(t, filepath.Join(t.TempDir(), "other.db"), l.fixture)
	other.grow(30)
	told("the other history", other, "one of the two was rewritten")
	_, err := js.Publish(t.Context(), "kernelgate.kernel-test.events.upgrade.created", []byte("hello"))
	check(t, err)
	told("another's message", l, "only gateways may publish there")
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"orders.>"}})
	check(t, err)
	c := config(s)
	c.Stream = "OTHER"
	b = newBus(t, l, c).start(t)
	eventually(t, "the other stream is refused", func() bool {
		lag, err := b.Lag(t.Context())
		return err == nil && lag.Err != nil && strings.Contains(lag.Err.Error(), "and no other")
	})
}

func TestALargeRecordTravelsWithoutItsData(t *testing.T) {
	s := newServer(t, "max_payload: 64KB")
	s.start()
	l := newLog(t)
	body := []byte(`"` + strings.Repeat("x", 100_000) + `"`)
	rec := workflow.Record{Digest: envelope.DigestOf(body), Kind: workflow.KindCanaryReport, Person: "kernel", Body: body}
	check(t, l.Update(t.Context(), func(tx workflow.Tx) error {
		if _, err := tx.AddRecord(rec); err != nil {
			return err
		}
		_, err := tx.AppendEvent(workflow.EventDraft{Type: "upgrade.canary_passed", Actor: "kernel", Data: map[string]any{"recordDigest": rec.Digest.String()}})
		return err
	}))
	l.seal()
	newBus(t, l, config(s)).start(t)
	l.caughtUp()
	found, err := s.consumer().Stream(t.Context(), stream)
	check(t, err)
	raw, err := found.GetLastMsgForSubject(t.Context(), "kernelgate.kernel-test.records.canary-report")
	check(t, err)
	m, err := bus.Parse(raw.Data)
	if err != nil || m.Data != nil || m.ID != rec.Digest.String() {
		t.Errorf("the message is %+v, %v", m, err)
	}
}

func TestNewRefuses(t *testing.T) {
	l := newLog(t)
	good := bus.Config{URL: "tls://nats.example:4222", Stream: stream, Replicas: 1, MaxLag: 1, MaxDelay: time.Second}
	if _, err := bus.New(good, l, nil); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*bus.Config){
		"plain text to another host": func(c *bus.Config) { c.URL = "nats://nats.example:4222" },
		"one of two in plain text":   func(c *bus.Config) { c.URL += ",nats://nats.example" },
		"a password in the URL":      func(c *bus.Config) { c.URL = "tls://kg:secret@nats.example:4222" },
		"another scheme":             func(c *bus.Config) { c.URL = "http://nats.example" },
		"no URL":                     func(c *bus.Config) { c.URL = "" },
		"a stream's name":            func(c *bus.Config) { c.Stream = "a.b" },
		"no replica":                 func(c *bus.Config) { c.Replicas = 0 },
		"no lag":                     func(c *bus.Config) { c.MaxLag = 0 },
		"no delay":                   func(c *bus.Config) { c.MaxDelay = 0 },
	} {
		c := good
		change(&c)
		if _, err := bus.New(c, l, nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
