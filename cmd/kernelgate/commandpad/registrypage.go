package commandpad

import (
	"net/http"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// registryPage is the pool of approvers and everybody else's keys.
type registryPage struct {
	Registry  *keyregistry.Registry
	Root      envelope.Digest
	Versions  int
	People    []holderInfo
	Suspended int
	Pending   int // upgrades whose approvals the next document would void
}

type holderInfo struct {
	ID         envelope.ID
	Name, Role string
	Keys       []keyInfo
}

type keyInfo struct {
	keyregistry.Key
	Suspended bool
	Standing  string // valid, not yet valid, over
}

func (p *Pad) registryPage(w http.ResponseWriter, r *http.Request, u user) error {
	reg, err := p.registry(r)
	if err != nil {
		return err
	}
	page := registryPage{Registry: reg, Root: p.Engine.Root, Versions: int(reg.Version())}
	suspended := map[envelope.KeyID]bool{}
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		list, err := reader.Suspensions(reg.Digest())
		if err != nil {
			return err
		}
		for _, env := range list {
			var s keyregistry.Suspension
			if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &s); err != nil {
				return err
			}
			suspended[s.SuspendedKeyID] = true
		}
		pending, _, err := reader.Upgrades(workflow.Page{States: []workflow.State{workflow.StatePendingApproval, workflow.StateQuorumReached}, Limit: 1000})
		page.Pending = len(pending)
		return err
	})
	if err != nil {
		return err
	}
	page.Suspended = len(suspended)
	page.People = p.people(reg.Document(), suspended)
	p.render(w, r, http.StatusOK, "registry", frame{Title: "Registry", User: u, Place: "registry", Page: page})
	return nil
}

func (p *Pad) people(doc *keyregistry.Document, suspended map[envelope.KeyID]bool) []holderInfo {
	var out []holderInfo
	add := func(id envelope.ID, name, role string, keys []keyregistry.Key) {
		h := holderInfo{ID: id, Name: name, Role: role}
		for _, k := range keys {
			h.Keys = append(h.Keys, keyInfo{k, suspended[k.KeyID], standing(&k, p.now())})
		}
		out = append(out, h)
	}
	for _, a := range doc.Approvers {
		add(a.ID, a.Name, string(a.Role), a.Keys)
	}
	for _, q := range doc.Requestors {
		add(q.ID, q.Name, "requestor", q.Keys)
	}
	for _, c := range doc.CI {
		add(c.ID, c.Name, "ci", c.Keys)
	}
	add(upgrade.KernelID, "The Kernel's records", "kernel", doc.Kernel.Records)
	add(upgrade.KernelID, "The Kernel's audit log", "kernel", doc.Kernel.Audit)
	return out
}

func standing(k *keyregistry.Key, now envelope.Time) string {
	switch {
	case now.Before(k.NotBefore):
		return "not yet valid"
	case now.After(k.NotAfter):
		return "over"
	}
	return "valid"
}
