package commandpad

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// proposePage is a new upgrade, or the rollback of one.
type proposePage struct {
	Proposal string // JSON, for the page's script
	Targets  []targetInfo
	Of       *workflow.View // the upgrade that is taken back; nil for a new one
	Why      string         // why this person cannot propose here; "" where they can
}

type targetInfo struct {
	Name envelope.ID      `json:"name"`
	Live upgrade.Revision `json:"live"`
}

// proposal is what the page's script needs to make a manifest.
type proposal struct {
	KernelID envelope.ID       `json:"kernelId"`
	Person   envelope.ID       `json:"person"`
	Keys     []browserKey      `json:"keys"`
	Targets  []targetInfo      `json:"targets"`
	Rollback *upgrade.Manifest `json:"rollback,omitzero"` // the manifest that is taken back
}

func (p *Pad) propose(w http.ResponseWriter, r *http.Request, u user) error {
	return p.proposal(w, r, u, nil)
}

// rollback is the proposal to take back what is live, in the same form.
func (p *Pad) rollback(w http.ResponseWriter, r *http.Request, u user) error {
	var id envelope.UUID
	if id.UnmarshalText([]byte(r.URL.Query().Get("of"))) != nil {
		return workflow.ErrNotFound
	}
	view, err := p.Engine.Upgrade(r.Context(), id)
	if err != nil {
		return err
	}
	return p.proposal(w, r, u, &view)
}

func (p *Pad) proposal(w http.ResponseWriter, r *http.Request, u user, of *workflow.View) error {
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return err
	}
	page := proposePage{Of: of}
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		for _, name := range p.Targets {
			target, err := reader.Target(name)
			if err != nil {
				return err
			}
			page.Targets = append(page.Targets, targetInfo{name, target.Live})
		}
		return nil
	})
	if err != nil {
		return err
	}
	data := proposal{KernelID: reg.KernelID(), Person: u.Person, Keys: browserKeys(reg, u.Person, p.now()), Targets: page.Targets}
	title := "New upgrade"
	if of != nil {
		data.Rollback, title = &of.Manifest, "Take back: "+firstLine(of.Manifest.Rationale)
	}
	page.Why = whyNotPropose(reg, u, data)
	if of != nil && page.Why == "" {
		page.Why = whyNotBack(&of.Manifest, page.Targets)
	}
	text, err := json.Marshal(data, json.Deterministic(true))
	page.Proposal = string(text)
	if err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "propose", frame{Title: title, User: u, Place: "new", Page: page})
	return nil
}

// whyNotBack says why an upgrade cannot be taken back; "" where it can.
func whyNotBack(m *upgrade.Manifest, targets []targetInfo) string {
	if m.BaseRevision == upgrade.None {
		return "Nothing was live before it, so there is nothing to go back to."
	}
	if !slices.Contains(targets, targetInfo{m.Target.Name, upgrade.RevisionOf(m.PatchHash)}) {
		return "It is not what is live at " + string(m.Target.Name) + ", so there is nothing of it to take back."
	}
	return ""
}

func whyNotPropose(reg *keyregistry.Registry, u user, data proposal) string {
	_, may := reg.Approver(data.Person)
	for _, q := range reg.Document().Requestors {
		may = may || q.ID == data.Person
	}
	switch {
	case u.Role != roleApprover && u.Role != roleRequestor && u.Role != roleOperator:
		return "You are signed in with the role " + u.Role + ", which only reads."
	case !may:
		return "Only approvers and requestors of the registry can propose."
	case len(data.Keys) == 0:
		return "The registry has no key of yours that signs in a browser. Use kgctl upgrade create with your token."
	case len(data.Targets) == 0:
		return "No target is configured in this gateway."
	}
	return ""
}
