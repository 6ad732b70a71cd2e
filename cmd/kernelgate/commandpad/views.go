package commandpad

import (
	"net/http"
	"slices"
	"sync"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// maxViews is how many upgrades are remembered for lists.
const maxViews = 4096

// views remembers how upgrades stand, since each look verifies signatures. A
// view holds while nothing that it was made of has changed.
type views struct {
	mu    sync.Mutex
	known map[envelope.UUID]knownView
}

type knownView struct {
	of    basis
	until envelope.Time // from then on the passing of time changes it
	view  workflow.View
}

// basis is all that a view depends on, but for the time.
type basis struct {
	id          envelope.UUID
	state       workflow.State
	updated     envelope.Time
	reason      string
	version     int64
	newest      int64 // its newest record
	registry    envelope.Digest
	suspensions int
}

func (v *views) get(of basis, now envelope.Time) (workflow.View, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.known[of.id]
	return k.view, ok && k.of == of && now.Before(k.until)
}

func (v *views) put(of basis, until envelope.Time, view workflow.View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxViews {
		clear(v.known)
	}
	view.Events, view.Envelope = nil, envelope.Envelope{} // lists show neither
	v.known[of.id] = knownView{of, until, view}
}

// rows are the upgrades of a page of a list, as a person sees them.
func (p *Pad) rows(r *http.Request, page workflow.Page, u user) (rows []row, next string, err error) {
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return nil, "", err
	}
	var bases []basis
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		suspensions, err := reader.Suspensions(reg.Digest())
		if err != nil {
			return err
		}
		list, cursor, err := reader.Upgrades(page)
		if err != nil {
			return err
		}
		next = cursor
		for _, up := range list {
			of := basis{id: up.ID, state: up.State, updated: up.UpdatedAt, reason: up.Reason, version: up.Version}
			if !slices.Contains(over, up.State) { // what is over stays as it was decided
				of.registry, of.suspensions = reg.Digest(), len(suspensions)
				if of.newest, err = reader.NewestRecord(up.ID); err != nil {
					return err
				}
			}
			bases = append(bases, of)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	for _, of := range bases {
		view, viewErr := p.view(r, of, reg)
		if viewErr != nil {
			return nil, "", viewErr
		}
		rows = append(rows, rowOf(view, u))
	}
	return rows, next, nil
}

func (p *Pad) view(r *http.Request, of basis, reg *keyregistry.Registry) (workflow.View, error) {
	now := p.now()
	if view, ok := p.views.get(of, now); ok {
		return view, nil
	}
	view, err := p.Engine.Upgrade(r.Context(), of.id)
	if err == nil {
		p.views.put(of, holdsUntil(view, reg, now), view)
	}
	return view, err
}

// holdsUntil is when the passing of time alone may change how an upgrade
// stands: an approval becomes stale, a key's validity begins or ends, the time
// for a ratification is over. At the latest it is looked at again in a day.
func holdsUntil(v workflow.View, reg *keyregistry.Registry, now envelope.Time) envelope.Time {
	until := now.Add(86400)
	earlier := func(t envelope.Time) {
		if t.After(now) && t.Before(until) {
			until = t
		}
	}
	if slices.Contains(over, v.Upgrade.State) {
		return until
	}
	if v.Upgrade.RatifyBy != nil {
		earlier(v.Upgrade.RatifyBy.Add(1))
	}
	for _, seat := range v.Seats {
		if seat.Status == upgrade.SeatApproved {
			earlier(seat.SignedAt.Add(reg.Rules().ApprovalTTLSeconds + 1))
		}
	}
	for _, keys := range holders(reg.Document()) {
		for i := range keys.keys {
			earlier(keys.keys[i].NotBefore)
			earlier(keys.keys[i].NotAfter.Add(1))
		}
	}
	return until
}

// holder is one person, or the Kernel, with what the registry says of them.
type keyHolder struct {
	id         envelope.ID
	name, role string
	keys       []keyregistry.Key
}

func holders(doc *keyregistry.Document) []keyHolder {
	var out []keyHolder
	for _, a := range doc.Approvers {
		out = append(out, keyHolder{a.ID, a.Name, string(a.Role), a.Keys})
	}
	for _, q := range doc.Requestors {
		out = append(out, keyHolder{q.ID, q.Name, "requestor", q.Keys})
	}
	for _, c := range doc.CI {
		out = append(out, keyHolder{c.ID, c.Name, "ci", c.Keys})
	}
	return append(out, keyHolder{upgrade.KernelID, "The Kernel's records", "kernel", doc.Kernel.Records},
		keyHolder{upgrade.KernelID, "The Kernel's audit log", "kernel", doc.Kernel.Audit})
}
