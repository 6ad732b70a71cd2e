package commandpad

import (
	"net/http"
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	// rotateSeconds before its end a key is due to be replaced.
	rotateSeconds = 30 * 86400
	// perPerson is how many of a person's newest records are looked through
	// for the last use of each of their keys.
	perPerson = 50
)

// registryPage is the pool of approvers and everybody else's keys.
type registryPage struct {
	Registry  *keyregistry.Registry
	Root      envelope.Digest
	People    []holderInfo
	Suspended int
	Due       []keyInfo // that end soon
	Pending   []row     // upgrades whose approvals the next document would void
	Underway  bool      // a new document waits for the guard
	Mine      bool      // the reader is in the registry
}

type holderInfo struct {
	ID         envelope.ID
	Name, Role string
	Keys       []keyInfo
}

type keyInfo struct {
	keyregistry.Key
	Holder    string
	Suspended bool
	Standing  string // valid, ends soon, not yet valid, over
	LastUse   envelope.Time
	Used      bool // LastUse is known
}

func (p *Pad) registryPage(w http.ResponseWriter, r *http.Request, u user) error {
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return err
	}
	page := registryPage{Registry: reg, Root: p.Engine.Root}
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		suspended, err := suspendedKeys(reader, reg)
		if err != nil {
			return err
		}
		page.Suspended = len(suspended)
		if page.Underway, err = underway(reader); err != nil {
			return err
		}
		page.People, err = p.people(reader, reg.Document(), suspended)
		return err
	})
	if err != nil {
		return err
	}
	for _, person := range page.People {
		page.Mine = page.Mine || person.ID == u.Person
		for _, k := range person.Keys {
			if k.Standing == standingEnds {
				page.Due = append(page.Due, k)
			}
		}
	}
	voided := workflow.Page{States: []workflow.State{workflow.StatePendingApproval, workflow.StateQuorumReached, workflow.StateEmergencyApplied}, Limit: perList}
	if page.Pending, _, err = p.rows(r, voided, u); err != nil {
		return err
	}
	page.Pending = slices.DeleteFunc(page.Pending, func(x row) bool { return x.Signed() == 0 })
	p.render(w, r, http.StatusOK, "registry", frame{Title: "Registry", User: u, Place: "registry", Page: page})
	return nil
}

func suspendedKeys(reader workflow.Reader, reg *keyregistry.Registry) (map[envelope.KeyID]bool, error) {
	list, err := reader.Suspensions(reg.Digest())
	if err != nil {
		return nil, err
	}
	suspended := map[envelope.KeyID]bool{}
	for _, env := range list {
		var s keyregistry.Suspension
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &s); err != nil {
			return nil, err
		}
		suspended[s.SuspendedKeyID] = true
	}
	return suspended, nil
}

// underway says whether a document was taken in that is not in force yet, since
// the guard has not accepted it.
func underway(reader workflow.Reader) (bool, error) {
	entries, err := reader.Registry()
	if err != nil {
		return false, err
	}
	known := map[envelope.Digest]bool{}
	for _, e := range entries {
		known[envelope.DigestOf(e.Document)] = true
	}
	records, err := reader.Records("")
	if err != nil {
		return false, err
	}
	for _, record := range records {
		var entry keyregistry.SignedDocument
		if record.Kind != workflow.KindRegistryEntry || envelope.DecodeCanonical(record.Body, 4<<20, &entry) != nil {
			continue
		}
		if doc, err := keyregistry.ParseDocument(entry.Document); err == nil && int(doc.Version) > len(entries) && !known[envelope.DigestOf(entry.Document)] {
			return true, nil
		}
	}
	return false, nil
}

func (p *Pad) people(reader workflow.Reader, doc *keyregistry.Document, suspended map[envelope.KeyID]bool) ([]holderInfo, error) {
	var out []holderInfo
	for _, h := range holders(doc) {
		used, err := lastUses(reader, h.id)
		if err != nil {
			return nil, err
		}
		info := holderInfo{ID: h.id, Name: h.name, Role: h.role}
		for _, k := range h.keys {
			at, known := used[k.KeyID]
			info.Keys = append(info.Keys, keyInfo{k, h.name, suspended[k.KeyID], standing(&k, p.now()), at, known})
		}
		out = append(out, info)
	}
	return out, nil
}

// lastUses are when a person's keys last signed a record, by their newest ones.
func lastUses(reader workflow.Reader, person envelope.ID) (map[envelope.KeyID]envelope.Time, error) {
	records, err := reader.RecordsBy(person, perPerson)
	used := map[envelope.KeyID]envelope.Time{}
	for _, record := range records {
		env, parseErr := envelope.Parse(record.Body)
		if parseErr != nil || len(env.Signatures) == 0 {
			continue // one of the Kernel's that is no envelope
		}
		if id := env.Signatures[0].KeyID; used[id] == (envelope.Time{}) {
			used[id] = record.ReceivedAt
		}
	}
	return used, err
}

// standingEnds is the standing of a key that is due to be replaced.
const standingEnds = "ends soon"

func standing(k *keyregistry.Key, now envelope.Time) string {
	switch {
	case now.Before(k.NotBefore):
		return "not yet valid"
	case now.After(k.NotAfter):
		return "over"
	case now.Add(rotateSeconds).After(k.NotAfter):
		return standingEnds
	}
	return "valid"
}
