package commandpad

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// maxProposed bounds a proposed registry entry, in bytes, as kgctl does.
const maxProposed = 4 << 20

// reviewPath takes a proposed entry, which is larger than any ceremony.
const reviewPath = "/registry/review"

// keyPage enrols a security key that signs records.
type keyPage struct {
	Enrolment string // JSON, for the page's script
	Holder    keyHolder
	Kind      keyregistry.Kind
	Why       string // why there is nothing to enrol; "" where there is
}

// enrolmentData is what the page's script needs to make an enrolment file.
type enrolmentData struct {
	Person envelope.ID      `json:"person"`
	Name   string           `json:"name"`
	Kind   keyregistry.Kind `json:"kind"`
	Role   keyregistry.Role `json:"role,omitzero"`
	RPID   string           `json:"rpId"`
	Origin string           `json:"origin"`
}

// enrolKey makes a file for kgctl registry propose: the new key, and its own
// signature as proof that somebody holds it.
func (p *Pad) enrolKey(w http.ResponseWriter, r *http.Request, u user) error {
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return err
	}
	page := keyPage{Why: "The registry does not know " + string(u.Person) + ". A first key comes with kgctl key enroll; ask an operator."}
	data := enrolmentData{Person: u.Person, RPID: p.passkeys.Config.RPID, Origin: p.Origin}
	for _, h := range holders(reg.Document()) {
		if h.id == u.Person {
			page.Holder, data.Name, page.Why = h, h.name, ""
			data.Kind = keyregistry.KindRequestor
			if a, ok := reg.Approver(u.Person); ok {
				data.Kind, data.Role = keyregistry.KindApprover, a.Role
			}
			break
		}
	}
	page.Kind = data.Kind
	if page.Holder.role == string(keyregistry.KindCI) {
		page.Why = "A CI system signs without a browser; kgctl key enroll makes its file."
	}
	text, err := json.Marshal(data, json.Deterministic(true))
	page.Enrolment = string(text)
	if err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "key", frame{Title: "Enrol a security key", User: u, Place: "registry", Page: page})
	return nil
}

func (p *Pad) signRegistry(w http.ResponseWriter, r *http.Request, u user) error {
	p.render(w, r, http.StatusOK, "sign-registry", frame{Title: "Sign a new registry version", User: u, Place: "registry"})
	return nil
}

// review is what a proposed registry entry would change, and by which keys of
// the reader it can be signed here.
type review struct {
	Version  int64        `json:"version"`
	Digest   string       `json:"digest"`
	Changes  []string     `json:"changes"`
	Voids    int          `json:"voids"` // upgrades whose approvals it would void
	SignedBy []string     `json:"signedBy"`
	Needed   string       `json:"needed"`
	Keys     []browserKey `json:"keys"`
	Type     string       `json:"type"`
	Payload  string       `json:"payload"` // base64 of the statement's canonical bytes
}

// reviewRegistry reads a proposed entry. It accepts nothing: who publishes it
// has every rule checked.
func (p *Pad) reviewRegistry(_ http.ResponseWriter, r *http.Request) (any, error) {
	u, err := p.user(r)
	if err != nil {
		return nil, err
	}
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return nil, err
	}
	var entry keyregistry.SignedDocument
	if err := json.UnmarshalRead(r.Body, &entry, json.RejectUnknownMembers(true)); err != nil {
		return nil, unclear("This is no registry file: kgctl registry propose writes one.")
	}
	doc, err := keyregistry.ParseDocument(entry.Document)
	if err != nil {
		return nil, unclear("Its document is not valid: " + err.Error() + ".")
	}
	statement, err := envelope.Canonical(keyregistry.NewStatement(doc, entry.Document))
	if err != nil {
		return nil, err
	}
	if entry.Statement.PayloadType != envelope.TypeRegistryStatement || string(statement) != string(entry.Statement.Payload) {
		return nil, unclear("Its statement does not speak of the document beside it. Do not sign; tell whoever gave it to you.")
	}
	if doc.Version != reg.Version()+1 || doc.Previous == nil || *doc.Previous != reg.Digest() {
		return nil, unclear(fmt.Sprintf("It is version %d and does not follow the registry in force, which is version %d.", doc.Version, reg.Version()))
	}
	out := &review{Version: doc.Version, Digest: envelope.DigestOf(entry.Document).String(), Changes: registryChanges(reg.Document(), doc), Type: entry.Statement.PayloadType,
		Payload: base64.StdEncoding.EncodeToString(statement)}
	out.signatures(reg, doc, entry.Statement, u, p.now())
	out.Voids, err = p.voided(r)
	return out, err
}

func (p *Pad) voided(r *http.Request) (n int, err error) {
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		list, _, err := reader.Upgrades(workflow.Page{States: []workflow.State{workflow.StatePendingApproval, workflow.StateQuorumReached, workflow.StateEmergencyApplied}, Limit: 1000})
		n = len(list)
		return err
	})
	return n, err
}

// signatures says who has signed, and with which keys the reader can: those in
// force, which decide, and new ones, which prove that they are there.
func (v *review) signatures(reg *keyregistry.Registry, doc *keyregistry.Document, statement envelope.Envelope, u user, now envelope.Time) {
	v.SignedBy, v.Keys = []string{}, []browserKey{}
	done := map[envelope.KeyID]bool{}
	people := map[envelope.ID]bool{}
	for _, sig := range statement.Signatures {
		done[sig.KeyID] = true
		entry, err := reg.Lookup(sig.KeyID)
		if err != nil || entry.Key.Verify(statement, sig) != nil {
			v.SignedBy = append(v.SignedBy, "a new key, "+short(sig.KeyID))
			continue
		}
		people[entry.ID] = true
		v.SignedBy = append(v.SignedBy, string(entry.ID))
	}
	v.Needed = count(max(0, keyregistry.Quorum-len(people)), "approver of the version in force must sign still.", "approvers of the version in force must sign still.")
	for _, a := range append(slices.Clone(reg.Document().Approvers), doc.Approvers...) {
		for _, k := range a.Keys {
			if a.ID == u.Person && k.WebAuthn != nil && k.ValidAt(now) && !done[k.KeyID] {
				done[k.KeyID] = true
				v.Keys = append(v.Keys, browserKey{k.KeyID, k.WebAuthn.CredentialID, k.WebAuthn.RPID})
			}
		}
	}
}

// registryChanges says in words what one document changes of another.
func registryChanges(before, after *keyregistry.Document) []string {
	out := []string{}
	type place struct {
		who string
		key keyregistry.Key
	}
	known := map[envelope.KeyID]place{}
	for _, h := range holders(before) {
		for _, k := range h.keys {
			known[k.KeyID] = place{title(h), k}
		}
	}
	for _, h := range holders(after) {
		for _, k := range h.keys {
			old, was := known[k.KeyID]
			delete(known, k.KeyID)
			switch {
			case !was:
				out = append(out, fmt.Sprintf("%s gets key %s: %s, valid from %s to %s.", title(h), short(k.KeyID), originNames[k.Origin], k.NotBefore, k.NotAfter))
			case old.who != title(h):
				out = append(out, old.who+" becomes "+title(h)+".")
			case old.key.NotBefore != k.NotBefore || old.key.NotAfter != k.NotAfter:
				out = append(out, fmt.Sprintf("Key %s of %s is valid from %s to %s.", short(k.KeyID), title(h), k.NotBefore, k.NotAfter))
			}
		}
	}
	for id, p := range known {
		out = append(out, fmt.Sprintf("%s loses key %s for ever.", p.who, short(id)))
	}
	slices.Sort(out)
	return append(slices.Compact(out), ruleChanges(&before.Rules, &after.Rules)...)
}

func title(h keyHolder) string { return fmt.Sprintf("%s (%s, %s)", h.name, h.id, h.role) }

func ruleChanges(before, after *keyregistry.Rules) (out []string) {
	add := func(name string, was, is any) {
		if was != is {
			out = append(out, fmt.Sprintf("%s: %v instead of %v.", name, is, was))
		}
	}
	policy := func(r *keyregistry.Rules) string {
		if r.PolicyDigest == nil {
			return "not fixed"
		}
		return r.PolicyDigest.String()
	}
	add("Approvals hold", span(before.ApprovalTTLSeconds), span(after.ApprovalTTLSeconds))
	add("Ratification within", span(before.RatificationWindowSeconds), span(after.RatificationWindowSeconds))
	add("Separation of duties", before.SeparationOfDuties, after.SeparationOfDuties)
	add("Approvals from outside a browser", before.MinNonBrowserApprovals, after.MinNonBrowserApprovals)
	add("Policy", policy(before), policy(after))
	return out
}

// unclear is a call whose content makes no sense, with the words for people.
type unclear string

func (e unclear) Error() string { return string(e) }
