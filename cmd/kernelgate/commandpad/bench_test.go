package commandpad_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// counted is a store that counts how often an upgrade's records are read.
type counted struct {
	workflow.Store
	reads atomic.Int64
}

func (c *counted) View(ctx context.Context, f func(workflow.Reader) error) error {
	return c.Store.View(ctx, func(r workflow.Reader) error { return f(countedReader{r, c}) })
}

type countedReader struct {
	workflow.Reader
	c *counted
}

func (r countedReader) Records(id envelope.UUID) ([]workflow.Record, error) {
	r.c.reads.Add(1)
	return r.Reader.Records(id)
}

// silent is a guard that nobody asks.
type silent struct{ workflow.Guard }

func (silent) Status(context.Context) (workflow.GuardStatus, error) {
	return workflow.GuardStatus{Ready: true}, nil
}

type allows struct{}

func (allows) Evaluate(context.Context, upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	return upgrade.PolicyVerdict{Allow: true, OnCanaryFailure: upgrade.CanaryEscalate}, nil
}
func (allows) Engine() string          { return "test" }
func (allows) Digest() envelope.Digest { return envelope.DigestOf([]byte("allows")) }

// shelf is pages over a real database that holds n upgrades: one in a hundred
// is pending with two approvals, the others are done.
type shelf struct {
	pad    *commandpad.Pad
	store  *counted
	cookie string
	one    envelope.UUID // pending
}

func newShelf(t testing.TB, n int) *shelf {
	t.Helper()
	fixture := registrytest.New(envelope.TimeOf(time.Now()))
	doc, entry := fixture.Registry.Document(), fixture.Entries[0]
	var five []signer.Signer
	for _, a := range doc.Approvers {
		five = append(five, fixture.Signers[string(a.ID)])
	}
	db, err := storage.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "kernelgate.db"), time.Now)
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	artifacts, err := artifact.OpenDir(t.TempDir(), 1<<20)
	check(t, err)
	patch, _, err := artifacts.Put(t.Context(), bytes.NewReader([]byte("--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n")))
	check(t, err)
	s := &shelf{store: &counted{Store: db}}
	s.fill(t, n, doc, entry, five, patch)
	engine := workflow.New(workflow.Config{Store: s.store, Artifacts: artifacts, Guard: silent{}, Policy: allows{}, Root: envelope.DigestOf(entry.Document), Instance: "test", Logger: slog.New(slog.DiscardHandler)})
	s.pad, err = commandpad.New(commandpad.Config{Engine: engine, Store: s.store, Artifacts: artifacts, Accounts: db, Origin: "http://localhost:8420",
		Targets: []envelope.ID{"web"}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	text, hash := account.NewSecret()
	check(t, db.ChangeAccount(t.Context(), doc.Approvers[0].ID, "", func(a *account.Account, _ bool) error {
		a.Role, a.Passkeys = "approver", []byte("[]")
		return nil
	}))
	check(t, db.PutSecret(t.Context(), account.Session, hash, doc.Approvers[0].ID, []byte(`{"person":"`+string(doc.Approvers[0].ID)+`","role":"approver"}`), time.Now().Add(time.Hour)))
	s.cookie = "kernelgate-session=" + text
	return s
}

// fill puts upgrades into the database with records that verify.
func (s *shelf) fill(t testing.TB, n int, doc *keyregistry.Document, entry keyregistry.SignedDocument, five []signer.Signer, patch envelope.Digest) {
	registry := envelope.DigestOf(entry.Document)
	now := envelope.TimeOf(time.Now())
	check(t, s.store.Update(t.Context(), func(tx workflow.Tx) error {
		if err := tx.AddRegistry(1, entry); err != nil {
			return err
		}
		return tx.PutCheckpoint("no events yet", 0)
	}))
	for from := 0; from < n; from += 500 {
		check(t, s.store.Update(t.Context(), func(tx workflow.Tx) error {
			for i := from; i < min(from+500, n); i++ {
				state := workflow.StateCompleted
				if i%100 == 0 {
					state = workflow.StatePendingApproval
				}
				if err := s.put(t, tx, i, state, doc, registry, five, patch, now); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

func (s *shelf) put(t testing.TB, tx workflow.Tx, i int, state workflow.State, doc *keyregistry.Document, registry envelope.Digest, five []signer.Signer, patch envelope.Digest, now envelope.Time) error {
	m := upgrade.Manifest{KernelID: doc.KernelID, UpgradeID: envelope.UUID(uuid.NewString()), Type: upgrade.TypeCode, BaseRevision: upgrade.None, PatchHash: patch,
		Target: upgrade.Target{Name: "web", ManifestID: fmt.Sprint("release-", i)}, Rationale: fmt.Sprintf("Release %d of the shop", i),
		Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"}, Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}},
		Timestamp: now, ProposedBy: doc.Approvers[1].ID, KeyID: envelope.KeyID(five[1].Public().KeyID())}
	env, err := envelope.Seal(t.Context(), five[1], envelope.TypeManifest, m)
	if err != nil {
		return err
	}
	at := now.Add(-int64(i))
	row := workflow.Upgrade{ID: m.UpgradeID, Target: "web", Type: m.Type, State: state, ManifestDigest: env.PayloadDigest(), ProposedBy: m.ProposedBy, Intent: m.Rationale,
		CreatedAt: at, UpdatedAt: now, ExpiresAt: now.Add(86400)}
	if state == workflow.StatePendingApproval && s.one == "" {
		s.one = m.UpgradeID
	}
	if err := tx.PutUpgrade(row); err != nil {
		return err
	}
	keep := func(kind string, person envelope.ID, env envelope.Envelope) error {
		_, err := tx.AddRecord(workflow.Record{Digest: env.PayloadDigest(), UpgradeID: m.UpgradeID, Kind: kind, Person: person, SignedAt: now, ReceivedAt: now, Body: env.Bytes()})
		return err
	}
	if err := keep(workflow.KindManifest, m.ProposedBy, env); err != nil {
		return err
	}
	for k := 1; k <= 2; k++ {
		approval := upgrade.Approval{KernelID: doc.KernelID, UpgradeID: m.UpgradeID, ApproverID: doc.Approvers[k].ID, ApprovalTs: now, ManifestDigest: env.PayloadDigest(), PatchHash: patch,
			RegistryDigest: registry, KeyID: envelope.KeyID(five[k].Public().KeyID())}
		signed, err := envelope.Seal(t.Context(), five[k], envelope.TypeApproval, approval)
		if err != nil {
			return err
		}
		if err := keep(workflow.KindApproval, doc.Approvers[k].ID, signed); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) get(t testing.TB, path string) string {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	req.Header.Set("Cookie", s.cookie)
	w := httptest.NewRecorder()
	s.pad.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s answers %d: %.300s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What was looked at is not verified again until it changes.
func TestTheInboxReadsWhatChanged(t *testing.T) {
	s := newShelf(t, 300)
	s.get(t, "/")
	first := s.store.reads.Swap(0)
	if first == 0 {
		t.Fatal("nothing was read")
	}
	s.get(t, "/")
	if n := s.store.reads.Swap(0); n != 0 {
		t.Errorf("the second look reads the records of %d upgrades", n)
	}
	check(t, s.store.Update(t.Context(), func(tx workflow.Tx) error {
		row, err := tx.Upgrade(s.one)
		if err != nil {
			return err
		}
		row.State = workflow.StateRejected
		return tx.PutUpgrade(row)
	}))
	s.get(t, "/")
	if n := s.store.reads.Swap(0); n != 1 {
		t.Errorf("after one changed, the records of %d upgrades are read", n)
	}
}

// BenchmarkPages prints the server's time of a page at 10,000 upgrades: the
// 95th percentile and the first look after a start, in milliseconds.
func BenchmarkPages(b *testing.B) {
	s := newShelf(b, 10_000)
	for name, path := range map[string]string{"inbox": "/", "search": "/?q=release+4711", "upgrade": "/upgrades/" + string(s.one), "approve": "/upgrades/" + string(s.one) + "/approve",
		"registry": "/registry", "audit": "/audit", "new": "/new"} {
		b.Run(name, func(b *testing.B) {
			start := time.Now()
			s.get(b, path)
			first := time.Since(start)
			var times []time.Duration
			for b.Loop() {
				start := time.Now()
				s.get(b, path)
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1000, "p95-ms")
			b.ReportMetric(float64(first.Microseconds())/1000, "first-ms")
		})
	}
}
