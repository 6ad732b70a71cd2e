package bus_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/bus"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	kernelID = registrytest.KernelID
	stream   = "AUDIT"
)

// log is a Kernel's log in a real database, sealed by its audit key.
type log struct {
	*storage.SQLite
	t       *testing.T
	fixture *registrytest.Fixture
	records int
}

func newLog(t *testing.T) *log {
	t.Helper()
	return openLog(t, filepath.Join(t.TempDir(), "log.db"), registrytest.New(envelope.TimeOf(time.Now())))
}

// openLog begins with a delegation and the registry, as the engine's Init does.
func openLog(t *testing.T, file string, fixture *registrytest.Fixture) *log {
	t.Helper()
	store, err := storage.OpenSQLite(t.Context(), file, time.Now)
	check(t, err)
	t.Cleanup(func() { check(t, store.Close()) })
	l := &log{SQLite: store, t: t, fixture: fixture}
	l.delegate()
	check(t, l.Update(t.Context(), func(tx workflow.Tx) error {
		if err := tx.AddRegistry(1, fixture.Entries[0]); err != nil {
			return err
		}
		_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.RegistryUpdated, Actor: "kernel", Data: auditlog.Data{
			auditlog.DataRecordDigest: fixture.Root.String(), "version": int64(1)}})
		return err
	}))
	l.seal()
	return l
}

func (l *log) audit() signer.Signer { return l.fixture.Signers[registrytest.KernelAudit] }

// delegate makes a new event key and introduces it.
func (l *log) delegate() {
	l.t.Helper()
	key := registrytest.Key(signer.Ed25519)
	now := envelope.TimeOf(time.Now())
	env, err := auditlog.SealDelegation(context.Background(), l.audit(), auditlog.Delegation{
		EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: "gateway-1", KernelID: kernelID,
		NotBefore: now, NotAfter: now.Add(auditlog.MaxEventKeySeconds), PublicKey: key.Public().DER(),
	})
	check(l.t, err)
	l.SetEventKey(kernelID, key)
	l.append(workflow.EventDraft{Type: auditlog.KeyDelegated, Actor: "kernel", Data: auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())}})
}

func (l *log) append(drafts ...workflow.EventDraft) {
	l.t.Helper()
	check(l.t, l.Update(context.Background(), func(tx workflow.Tx) error {
		for _, d := range drafts {
			if _, err := tx.AppendEvent(d); err != nil {
				return err
			}
		}
		return nil
	}))
}

// grow appends events, every third about a record of its own, and seals them.
func (l *log) grow(events int) {
	l.t.Helper()
	check(l.t, l.Update(context.Background(), func(tx workflow.Tx) error {
		for i := range events {
			draft := workflow.EventDraft{Type: auditlog.UpgradePendingApproval, Actor: "ops"}
			if i%3 == 0 {
				rec, err := l.record()
				if err != nil {
					return err
				}
				if _, err := tx.AddRecord(rec); err != nil {
					return err
				}
				draft.Type, draft.Data = auditlog.ApprovalSubmitted, auditlog.Data{auditlog.DataRecordDigest: rec.Digest.String()}
			}
			if _, err := tx.AppendEvent(draft); err != nil {
				return err
			}
		}
		return nil
	}))
	l.seal()
}

// record is an envelope that ops signed.
func (l *log) record() (workflow.Record, error) {
	l.records++
	env, err := envelope.Seal(context.Background(), l.fixture.Signers["ops"], envelope.TypeApproval, map[string]any{"n": l.records})
	now := envelope.TimeOf(time.Now())
	return workflow.Record{Digest: env.PayloadDigest(), Kind: workflow.KindApproval, Person: "ops", SignedAt: now, ReceivedAt: now, Body: env.Bytes()}, err
}

func (l *log) seal() {
	l.t.Helper()
	check(l.t, l.Update(context.Background(), func(tx workflow.Tx) error {
		size, err := tx.LogSize()
		if err != nil {
			return err
		}
		root, err := tx.TreeRoot(size)
		if err != nil {
			return err
		}
		note, err := auditlog.SignCheckpoint(context.Background(), l.audit(), kernelID, size, root)
		if err != nil {
			return err
		}
		return tx.PutCheckpoint(note, size)
	}))
}

func (l *log) size() (n int64) {
	l.t.Helper()
	check(l.t, l.View(l.t.Context(), func(r workflow.Reader) (err error) { n, err = r.LogSize(); return err }))
	return n
}

func (l *log) cursor() (n int64) {
	l.t.Helper()
	check(l.t, l.View(l.t.Context(), func(r workflow.Reader) (err error) { n, err = r.Cursor(bus.CursorNext); return err }))
	return n
}

// running is a bus that runs until stop, or the test's end.
type running struct {
	*bus.Bus
	log  *lockedBuffer
	stop func()
}

func config(s *server) bus.Config {
	return bus.Config{URL: s.url(), Stream: stream, Replicas: 1, MaxLag: 1000, MaxDelay: time.Hour}
}

func newBus(t *testing.T, store workflow.Store, c bus.Config) *running {
	t.Helper()
	r := &running{log: new(lockedBuffer)}
	b, err := bus.New(c, store, slog.New(slog.NewTextHandler(r.log, nil)))
	check(t, err)
	b.Hurry(5*time.Second, nil)
	r.Bus = b
	return r
}

func (r *running) start(t *testing.T) *running {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

func (l *log) caughtUp() {
	l.t.Helper()
	eventually(l.t, "all is published", func() bool { return l.cursor() == l.size() })
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// auditor is a consumer that trusts nobody: it verifies each message by itself,
// that no event is missing, that none comes twice and that a record comes before
// the event that names it.
type auditor struct {
	t        *testing.T
	verifier *bus.Verifier
	next     int64
	hash     envelope.Digest
	records  map[string]bool
	messages int
}

func (l *log) auditor() *auditor {
	l.t.Helper()
	v, err := bus.NewVerifier(l.fixture.Root, l.fixture.Entries)
	check(l.t, err)
	return &auditor{t: l.t, verifier: v, records: map[string]bool{}}
}

// read reads the stream up to its end.
func (a *auditor) read(js jetstream.JetStream) {
	a.t.Helper()
	s, err := js.Stream(a.t.Context(), stream)
	check(a.t, err)
	info, err := s.Info(a.t.Context())
	check(a.t, err)
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		raw, err := s.GetMsg(a.t.Context(), seq)
		check(a.t, err)
		a.take(raw.Subject, raw.Data)
	}
}

func (a *auditor) take(subject string, body []byte) {
	a.t.Helper()
	m, err := bus.Parse(body)
	check(a.t, err)
	a.verified(m, subject)
}

// has says whether a message was taken before.
func (a *auditor) has(m bus.Message) bool {
	seq, err := strconv.ParseInt(m.ID, 10, 64)
	return m.Sequence != "" && err == nil && seq < a.next || a.records[m.ID]
}

// verified verifies a message that came under a subject.
func (a *auditor) verified(m bus.Message, subject string) {
	a.t.Helper()
	a.messages++
	if m.Sequence == "" {
		_, err := a.verifier.Record(m)
		if err != nil || "com.kernelgate.record."+strings.TrimPrefix(subject, "kernelgate.kernel-test.records.") != m.Type {
			a.t.Fatalf("record %s in %s: %v", m.ID, subject, err)
		}
		a.records[m.ID] = true
		return
	}
	e, _, err := a.verifier.Event(m)
	if err != nil || e.Seq != a.next || e.PrevHash != a.hash || subject != "kernelgate.kernel-test.events."+e.Type {
		a.t.Fatalf("event %s in %s, where %d is next: %v", m.ID, subject, a.next, err)
	}
	if named := e.Data.Text(auditlog.DataRecordDigest); named != "" && !a.records[named] {
		a.t.Fatalf("event %d comes before its record", e.Seq)
	}
	env, err := envelope.Parse(bytes.Clone(m.Data))
	check(a.t, err)
	a.next, a.hash = e.Seq+1, env.PayloadDigest()
}

// whole checks that the stream is the log, exactly.
func (l *log) whole(js jetstream.JetStream) *auditor {
	l.t.Helper()
	a := l.auditor()
	a.read(js)
	if a.next != l.size() || len(a.records) != l.records+1 || a.messages != int(l.size())+l.records+1 {
		l.t.Fatalf("the stream has %d messages: %d events of %d, %d records of %d", a.messages, a.next, l.size(), len(a.records), l.records+1)
	}
	return a
}
