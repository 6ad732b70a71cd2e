package commandpad

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// approvePage is the ceremony of one person about one upgrade.
type approvePage struct {
	*upgradePage
	Ceremony   string // JSON, for the page's script
	BrowserKey bool   // the person has a key that signs here
	Seated     bool   // the person is one of the five
	MayDecide  bool   // rejections and test requests are taken
	Window     string // for ratification
}

// signing is what the page's script needs to make a record. Watch is what
// voids the ceremony when it changes while the page is open.
type signing struct {
	About    about             `json:"about"`
	Keys     []browserKey      `json:"keys"`
	Watch    map[string]string `json:"watch"`
	WordList string            `json:"wordList"`
}

type about struct {
	KernelID       envelope.ID     `json:"kernelId"`
	UpgradeID      envelope.UUID   `json:"upgradeId"`
	Person         envelope.ID     `json:"person"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	PatchHash      envelope.Digest `json:"patchHash"`
	RegistryDigest envelope.Digest `json:"registryDigest"`
	Manifest       string          `json:"manifest"` // base64 of its canonical bytes
}

type browserKey struct {
	KeyID        envelope.KeyID `json:"keyId"`
	CredentialID string         `json:"credentialId"` // unpadded base64url
	RPID         string         `json:"rpId"`
}

func (p *Pad) approve(w http.ResponseWriter, r *http.Request, u user) error {
	page, _, err := p.ceremony(r, u)
	if err != nil {
		return err
	}
	page.Seated = page.seatOf(u.Person)
	page.MayDecide = page.Seated && page.Open()
	p.render(w, r, http.StatusOK, "approve", frame{Title: "Approve: " + page.Intent, User: u, Place: "inbox", Page: page})
	return nil
}

// emergency is the page of its own on which an emergency is triggered.
func (p *Pad) emergency(w http.ResponseWriter, r *http.Request, u user) error {
	page, reg, err := p.ceremony(r, u)
	if err != nil {
		return err
	}
	page.CanSign = whyNoEmergency(page, reg, u)
	page.Window = span(reg.Rules().RatificationWindowSeconds)
	p.render(w, r, http.StatusOK, "emergency", frame{Title: "Emergency: " + page.Intent, User: u, Place: "inbox", Page: page})
	return nil
}

// whyNoEmergency says why this person cannot trigger one; "" where they can.
func whyNoEmergency(page *approvePage, reg *keyregistry.Registry, u user) string {
	approver, ok := reg.Approver(u.Person)
	switch {
	case !ok || !approver.Role.MayTriggerEmergency():
		return "Only the superadmin and the security engineer can trigger an emergency."
	case page.Manifest.BaseRevision == upgrade.None:
		return "Nothing is live at " + string(page.Upgrade.Target) + " yet, so there would be nothing to go back to."
	case page.Policy != nil && !page.Policy.Allow:
		return "The policy denies this upgrade. An emergency waives the quorum and the tests, never the policy."
	case !slices.Contains([]workflow.State{workflow.StateDraft, workflow.StatePaused, workflow.StatePendingApproval, workflow.StateQuorumReached}, page.Upgrade.State):
		return "This upgrade is " + strings.ToLower(stateName(page.Upgrade.State)) + "; it cannot be applied any more."
	}
	return ""
}

// ceremony is a page with what its script needs to sign about the upgrade.
func (p *Pad) ceremony(r *http.Request, u user) (*approvePage, *keyregistry.Registry, error) {
	page, err := p.load(r, u)
	if err != nil {
		return nil, nil, err
	}
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return nil, nil, err
	}
	s := signing{WordList: p.assets.url(wordList), Keys: browserKeys(reg, u.Person, p.now()), About: about{
		reg.KernelID(), page.Upgrade.ID, u.Person, page.Upgrade.ManifestDigest, page.Manifest.PatchHash, reg.Digest(),
		base64.StdEncoding.EncodeToString(page.Envelope.Payload)}}
	s.Watch = map[string]string{
		"its state": string(page.Upgrade.State), "the manifest": page.Upgrade.ManifestDigest.String(), "the registry in force": reg.Digest().String(),
		"what the policy says": policyText(page.Policy), "a test result": testsText(page.Tests), "a request for tests": page.requested(),
	}
	text, err := json.Marshal(s, json.Deterministic(true))
	return &approvePage{upgradePage: page, Ceremony: string(text), BrowserKey: len(s.Keys) > 0}, reg, err
}

// browserKeys are a person's keys that sign here and are valid now.
func browserKeys(reg *keyregistry.Registry, person envelope.ID, now envelope.Time) []browserKey {
	keys := []browserKey{}
	add := func(id envelope.ID, list []keyregistry.Key) {
		for i := range list {
			if k := &list[i]; id == person && k.WebAuthn != nil && k.ValidAt(now) {
				keys = append(keys, browserKey{k.KeyID, k.WebAuthn.CredentialID, k.WebAuthn.RPID})
			}
		}
	}
	for _, a := range reg.Document().Approvers {
		add(a.ID, a.Keys)
	}
	for _, q := range reg.Document().Requestors {
		add(q.ID, q.Keys)
	}
	return keys
}

func (page *upgradePage) seatOf(person envelope.ID) bool {
	for _, seat := range page.Seats {
		if seat.Person == person {
			return true
		}
	}
	return false
}

// requested is the newest request for tests, by its event.
func (page *upgradePage) requested() string {
	newest := ""
	for _, e := range page.Events {
		if e.Event.Type == auditlog.UpgradeTestsRequested {
			newest = e.Hash.String()
		}
	}
	return newest
}

func policyText(d *upgrade.PolicyDecision) string {
	if d == nil {
		return ""
	}
	text := "denies"
	if d.Allow {
		text = "allows"
	}
	for _, v := range d.Violations {
		text += "\n" + v.Rule + ": " + v.Message
	}
	return text
}

func testsText(tests []upgrade.TestResult) string {
	text := ""
	for _, t := range tests {
		text += t.Name + "=" + t.Result + "\n"
	}
	return text
}
