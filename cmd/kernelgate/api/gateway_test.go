package api

import (
	"context"
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// shelf is a store that only shows: one upgrade, one record, one event.
type shelf struct {
	workflow.Store
	workflow.Reader
	page  workflow.Page
	asked envelope.Digest // whose suspensions
}

func (s *shelf) Suspensions(registry envelope.Digest) ([]envelope.Envelope, error) {
	s.asked = registry
	return []envelope.Envelope{{PayloadType: envelope.TypeKeySuspension}}, nil
}

func (s *shelf) View(_ context.Context, f func(workflow.Reader) error) error { return f(s) }

func (s *shelf) Upgrade(id envelope.UUID) (workflow.Upgrade, error) {
	if id != "known" {
		return workflow.Upgrade{}, workflow.ErrNotFound
	}
	return workflow.Upgrade{ID: id, Target: "web", State: workflow.StateDraft}, nil
}

func (s *shelf) Upgrades(p workflow.Page) ([]workflow.Upgrade, string, error) {
	s.page = p
	return nil, "", nil
}

func (s *shelf) Records(envelope.UUID) ([]workflow.Record, error) {
	return []workflow.Record{{Kind: "policy-decision", Body: []byte("{}")}}, nil
}

func (s *shelf) UpgradeEvents(envelope.UUID) ([]workflow.StoredEvent, error) {
	return []workflow.StoredEvent{{Seq: 4, Leaf: []byte("x"), Event: auditlog.Event{Type: "upgrade.created", Actor: "tina", UpgradeID: "known"}}}, nil
}

func (s *shelf) Registry() ([]keyregistry.SignedDocument, error) {
	return []keyregistry.SignedDocument{{Document: []byte("one")}}, nil
}

func TestGatewayShows(t *testing.T) {
	store := &shelf{}
	g := &Gateway{Store: store}
	detail, err := g.Upgrade(t.Context(), "known")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(detail, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	zero := envelope.Digest{}.String()
	want := `{"records":[{"body":"e30=","digest":"` + zero + `","kind":"policy-decision","receivedAt":"1970-01-01T00:00:00Z"}],` +
		`"upgrade":{"createdAt":"1970-01-01T00:00:00Z","expiresAt":"1970-01-01T00:00:00Z","id":"known","manifestDigest":"` + zero +
		`","proposedBy":"","state":"draft","target":"web","type":"","updatedAt":"1970-01-01T00:00:00Z"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	events, err := g.UpgradeEvents(t.Context(), "known")
	if err != nil || len(events) != 1 || events[0].Seq != 4 || *events[0].Actor != "tina" || *events[0].UpgradeId != "known" {
		t.Errorf("got %+v, %v", events, err)
	}
	if _, err := g.UpgradeEvents(t.Context(), "other"); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
	page, err := g.Upgrades(t.Context(), Query{States: []State{"draft"}, Target: "web", Cursor: "c", Limit: 3})
	if err != nil || page.Upgrades == nil || page.Next != nil {
		t.Errorf("got %+v, %v", page, err)
	}
	if p := store.page; len(p.States) != 1 || p.Target != "web" || p.Cursor != "c" || p.Limit != 3 {
		t.Errorf("the store was asked for %+v", p)
	}
}

// The registry comes with the suspensions under its last document, and with
// those alone.
func TestGatewayShowsSuspensions(t *testing.T) {
	store := &shelf{}
	chain, err := (&Gateway{Store: store}).Registry(t.Context())
	if err != nil || len(chain.Entries) != 1 || len(chain.Suspensions) != 1 {
		t.Fatalf("got %+v, %v", chain, err)
	}
	if store.asked != envelope.DigestOf([]byte("one")) {
		t.Errorf("suspensions of %s", store.asked)
	}
}
