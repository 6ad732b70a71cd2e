package notify_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/notify"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const upgradeID envelope.UUID = "0b7f1d5e-3c1a-4c57-9d0e-000000000042"

// start is the time of every test.
var start = func() envelope.Time {
	t, err := envelope.ParseTime("2026-06-01T00:00:00Z")
	if err != nil {
		panic(err)
	}
	return t
}()

var entries = sync.OnceValue(func() []keyregistry.SignedDocument { return registrytest.New(start).Entries })

// store is as much of a store as a follower of the log needs.
type store struct {
	workflow.Tx // nil: nothing else is called
	mu          sync.Mutex
	events      []workflow.StoredEvent
	cursors     map[string]int64
	upgrade     workflow.Upgrade
}

func newStore(types ...string) *store {
	s := &store{cursors: map[string]int64{}, upgrade: workflow.Upgrade{
		ID: upgradeID, Target: "web", Type: upgrade.TypeCode, ProposedBy: "ops", State: workflow.StatePendingApproval,
		CreatedAt: start.Add(-86400), ExpiresAt: start.Add(13 * 86400),
	}}
	for _, t := range types {
		s.add(t, start)
	}
	return s
}

func (s *store) add(eventType string, at envelope.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := int64(len(s.events))
	s.events = append(s.events, workflow.StoredEvent{Seq: seq, Event: auditlog.Event{Actor: "sec-eng", KernelID: "k", Seq: seq, Time: at, Type: eventType, UpgradeID: upgradeID}})
}

func (s *store) Update(_ context.Context, f func(workflow.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s)
}

func (s *store) View(_ context.Context, f func(workflow.Reader) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s)
}

func (s *store) Events(from int64, limit int) ([]workflow.StoredEvent, error) {
	from = min(from, int64(len(s.events)))
	return s.events[from:min(len(s.events), int(from)+limit)], nil
}

func (s *store) Upgrade(envelope.UUID) (workflow.Upgrade, error) { return s.upgrade, nil }
func (s *store) Upgrades(workflow.Page) ([]workflow.Upgrade, string, error) {
	return []workflow.Upgrade{s.upgrade}, "", nil
}
func (s *store) Registry() ([]keyregistry.SignedDocument, error) { return entries(), nil }
func (s *store) Cursor(name string) (int64, error)               { return s.cursors[name], nil }
func (s *store) PutCursor(name string, next int64) error         { s.cursors[name] = next; return nil }

func (s *store) cursor(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors[name]
}

func seats(context.Context, envelope.UUID) ([]upgrade.Seat, error) {
	return []upgrade.Seat{
		{Person: "divlead-1", Status: upgrade.SeatApproved}, {Person: "divlead-2", Status: upgrade.SeatWaiting}, {Person: "ryan", Status: upgrade.SeatRejected},
		{Person: "sec-eng", Status: upgrade.SeatVoid}, {Person: "tech-lead", Status: upgrade.SeatWaiting},
	}, nil
}

// running is a notifier that runs until the test ends or stop is called.
type running struct {
	log  *lockedBuffer
	stop func()
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

func run(t *testing.T, c notify.Config, s *store) *running {
	t.Helper()
	r := &running{log: new(lockedBuffer)}
	n, err := notify.New(c, s, seats, slog.New(slog.NewJSONHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	n.Hurry(func() time.Time { return start.Std() })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

var secret = bytes.Repeat([]byte{7}, 32)

func secretFile(t *testing.T) string {
	return file(t, "whsec_"+base64.StdEncoding.EncodeToString(secret)+"\n")
}

// inbox is a receiver on loopback that keeps what it got.
type inbox struct {
	*httptest.Server
	mu   sync.Mutex
	got  []request
	code int
	ca   string
}

type request struct {
	header http.Header
	body   string
}

func newInbox(t *testing.T, withTLS bool) *inbox {
	t.Helper()
	in := &inbox{code: http.StatusNoContent}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		in.mu.Lock()
		defer in.mu.Unlock()
		in.got = append(in.got, request{r.Header, b.String()})
		if in.code == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(in.code)
	})
	if !withTLS {
		in.Server = httptest.NewServer(handler)
	} else {
		in.Server = httptest.NewTLSServer(handler)
		in.ca = file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: in.Certificate().Raw})))
	}
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) requests() []request {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]request{}, in.got...)
}

func (in *inbox) answer(code int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.code = code
}
