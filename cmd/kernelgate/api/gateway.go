package api

import (
	"context"
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Gateway is the API's Engine over the workflow's: it adds reading from the
// store, and the wire's forms. The engine must use the same store.
type Gateway struct {
	Workflow *workflow.Engine
	Store    workflow.Store
}

var _ Engine = (*Gateway)(nil)

// Submit implements Engine. A suspension is of no upgrade: it goes its own way.
func (g *Gateway) Submit(ctx context.Context, kind Kind, env envelope.Envelope) (Receipt, error) {
	if kind == KindKeySuspension {
		return g.suspend(ctx, env)
	}
	result, err := g.Workflow.Submit(ctx, string(kind), env)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{Added: result.Added, RecordDigest: result.Digest.String(), State: some(State(result.State)), UpgradeId: some(string(result.UpgradeID))}, nil
}

// suspend tells a suspension that was known from a new one by looking first:
// of two at once, both may be told that theirs was added.
func (g *Gateway) suspend(ctx context.Context, env envelope.Envelope) (Receipt, error) {
	chain, err := g.Registry(ctx)
	if err != nil {
		return Receipt{}, err
	}
	digest := env.PayloadDigest()
	known := slices.ContainsFunc(chain.Suspensions, func(s Envelope) bool { return s.PayloadDigest() == digest })
	if err := g.Workflow.Suspend(ctx, env); err != nil {
		return Receipt{}, err
	}
	return Receipt{Added: !known, RecordDigest: digest.String()}, nil
}

// RequestApprovals implements Engine.
func (g *Gateway) RequestApprovals(ctx context.Context, id envelope.UUID, actor envelope.ID) (Upgrade, error) {
	if _, err := g.Workflow.RequestApprovals(ctx, id, actor); err != nil {
		return Upgrade{}, err
	}
	detail, err := g.Upgrade(ctx, id)
	return detail.Upgrade, err
}

// AcceptRegistry implements Engine.
func (g *Gateway) AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	return g.Workflow.AcceptRegistry(ctx, entry)
}

// Preview implements Engine.
func (g *Gateway) Preview(ctx context.Context, m upgrade.Manifest) (PolicyPreview, error) {
	d, err := g.Workflow.Preview(ctx, m)
	if err != nil {
		return PolicyPreview{}, err
	}
	return PolicyPreview{Allow: d.Allow, Engine: d.Engine, PolicyDigest: d.PolicyDigest.String(),
		Violations: each(d.Violations, func(v upgrade.Violation) Violation { return Violation(v) })}, nil
}

// Upgrade implements Reader.
func (g *Gateway) Upgrade(ctx context.Context, id envelope.UUID) (UpgradeDetail, error) {
	var detail UpgradeDetail
	err := g.Store.View(ctx, func(r workflow.Reader) error {
		u, err := r.Upgrade(id)
		if err != nil {
			return err
		}
		records, err := r.Records(id)
		detail = UpgradeDetail{Upgrade: upgradeOf(u), Records: each(records, recordOf)}
		return err
	})
	return detail, err
}

// Upgrades implements Reader.
func (g *Gateway) Upgrades(ctx context.Context, q Query) (UpgradePage, error) {
	page := workflow.Page{Target: q.Target, Cursor: q.Cursor, Limit: q.Limit}
	for _, state := range q.States {
		page.States = append(page.States, workflow.State(state))
	}
	var out UpgradePage
	err := g.Store.View(ctx, func(r workflow.Reader) error {
		list, next, err := r.Upgrades(page)
		out = UpgradePage{Upgrades: each(list, upgradeOf), Next: some(next)}
		return err
	})
	return out, err
}

// Bundle implements Reader.
func (g *Gateway) Bundle(ctx context.Context, id envelope.UUID) ([]byte, error) {
	return g.Workflow.Bundle(ctx, id)
}

// UpgradeEvents implements Reader. An unknown upgrade is an error, not an
// upgrade without events.
func (g *Gateway) UpgradeEvents(ctx context.Context, id envelope.UUID) ([]Event, error) {
	var out []Event
	err := g.Store.View(ctx, func(r workflow.Reader) error {
		if _, err := r.Upgrade(id); err != nil {
			return err
		}
		events, err := r.UpgradeEvents(id)
		out = each(events, eventOf)
		return err
	})
	return out, err
}

// Events implements Reader.
func (g *Gateway) Events(ctx context.Context, from int64, limit int) ([]Event, error) {
	var out []Event
	err := g.Store.View(ctx, func(r workflow.Reader) error {
		events, err := r.Events(from, limit)
		out = each(events, eventOf)
		return err
	})
	return out, err
}

// LogSize implements Reader.
func (g *Gateway) LogSize(ctx context.Context) (size int64, err error) {
	err = g.Store.View(ctx, func(r workflow.Reader) error {
		size, err = r.LogSize()
		return err
	})
	return size, err
}

// Target implements Reader.
func (g *Gateway) Target(ctx context.Context, name envelope.ID) (Target, error) {
	var out Target
	err := g.Store.View(ctx, func(r workflow.Reader) error {
		t, err := r.Target(name)
		out = Target{Name: string(name), Live: string(t.Live), LiveUpgrade: some(string(t.LiveUpgrade)), Applying: some(string(t.Applying))}
		return err
	})
	return out, err
}

// Registry implements Reader.
func (g *Gateway) Registry(ctx context.Context) (RegistryChain, error) {
	chain := RegistryChain{Suspensions: []Envelope{}}
	err := g.Store.View(ctx, func(r workflow.Reader) (err error) {
		if chain.Entries, err = r.Registry(); err != nil || len(chain.Entries) == 0 {
			return err
		}
		last := chain.Entries[len(chain.Entries)-1]
		list, err := r.Suspensions(envelope.DigestOf(last.Document))
		chain.Suspensions = append(chain.Suspensions, list...)
		return err
	})
	return chain, err
}

// Checkpoint implements Reader.
func (g *Gateway) Checkpoint(ctx context.Context) (note string, err error) {
	err = g.Store.View(ctx, func(r workflow.Reader) error {
		note, _, err = r.Checkpoint()
		return err
	})
	return note, err
}

func upgradeOf(u workflow.Upgrade) Upgrade {
	out := Upgrade{
		Id: string(u.ID), Target: string(u.Target), Type: string(u.Type), State: State(u.State), Reason: some(u.Reason),
		ManifestDigest: u.ManifestDigest.String(), ProposedBy: string(u.ProposedBy),
		CreatedAt: u.CreatedAt.String(), UpdatedAt: u.UpdatedAt.String(), ExpiresAt: u.ExpiresAt.String(),
	}
	if u.BundleDigest != (envelope.Digest{}) {
		out.BundleDigest = some(u.BundleDigest.String())
	}
	return out
}

func recordOf(r workflow.Record) Record {
	out := Record{Digest: r.Digest.String(), Kind: r.Kind, Person: some(string(r.Person)), ReceivedAt: r.ReceivedAt.String(), Body: r.Body}
	if r.SignedAt != (envelope.Time{}) {
		out.SignedAt = some(r.SignedAt.String())
	}
	return out
}

func eventOf(e workflow.StoredEvent) Event {
	return Event{Seq: e.Seq, Time: e.Event.Time.String(), Type: e.Event.Type, Actor: some(string(e.Event.Actor)),
		UpgradeId: some(string(e.Event.UpgradeID)), Hash: e.Hash.String(), Leaf: e.Leaf}
}

// some is nil for the empty text, which the wire leaves out.
func some[T ~string](v T) *T {
	if v == "" {
		return nil
	}
	return &v
}

// each is never nil, so that an empty list is written as one.
func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, 0, len(list))
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}
