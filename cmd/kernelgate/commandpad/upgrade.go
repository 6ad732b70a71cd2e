package commandpad

import (
	"net/http"
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/changes"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// upgradePage is all of one upgrade, in the order in which people ask.
type upgradePage struct {
	row
	Step     string // the exact next step, and who may take it
	Sealed   int64  // events below this seq are under a signed checkpoint
	Artifact *artifactInfo
	Payload  string // the manifest's canonical bytes
	Seats    []seatInfo
	Missing  []string // required tests without a result
	Changes  *changes.Set
	CanSign  string // why this person cannot sign now; "" where they can
}

type artifactInfo struct {
	Digest envelope.Digest
	Size   int64
}

// seatInfo is a seat with what its holder said.
type seatInfo struct {
	upgrade.Seat
	Name, Role, KeyKind, Notes string
}

// Open says whether people still sign about it.
func (page *upgradePage) Open() bool {
	return slices.Contains([]workflow.State{workflow.StatePendingApproval, workflow.StateQuorumReached, workflow.StateEmergencyApplied}, page.Upgrade.State)
}

// MayAsk says whether approvals can be asked for.
func (page *upgradePage) MayAsk() bool { return page.Upgrade.State == workflow.StateDraft }

// MayTrigger says whether an emergency could be triggered by whoever may.
func (page *upgradePage) MayTrigger() bool {
	return slices.Contains([]workflow.State{workflow.StateDraft, workflow.StatePaused, workflow.StatePendingApproval}, page.Upgrade.State) &&
		page.Manifest.BaseRevision != upgrade.None
}

// MayRollBack says whether a rollback may be proposed.
func (page *upgradePage) MayRollBack() bool {
	live := []workflow.State{workflow.StateCompleted, workflow.StateApplied, workflow.StateValidating, workflow.StateEmergencyApplied}
	return slices.Contains(live, page.Upgrade.State) && page.Manifest.BaseRevision != upgrade.None
}

func (p *Pad) upgrade(w http.ResponseWriter, r *http.Request, u user) error {
	page, err := p.load(r, u)
	if err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "upgrade", frame{Title: page.Intent, User: u, Place: "inbox", Page: page})
	return nil
}

func (p *Pad) load(r *http.Request, u user) (*upgradePage, error) {
	var id envelope.UUID
	if id.UnmarshalText([]byte(r.PathValue("id"))) != nil {
		return nil, workflow.ErrNotFound
	}
	view, err := p.Engine.Upgrade(r.Context(), id)
	if err != nil {
		return nil, err
	}
	page := &upgradePage{row: rowOf(view, u), Payload: string(view.Envelope.Payload)}
	page.Step = nextStep(view)
	page.CanSign = whyNot(view, u)
	for _, name := range view.Manifest.Preconditions.Tests {
		if !slices.ContainsFunc(view.Tests, func(t upgrade.TestResult) bool { return t.Name == name }) {
			page.Missing = append(page.Missing, name)
		}
	}
	content, size, err := p.Artifacts.Open(r.Context(), view.Manifest.PatchHash)
	if err == nil {
		_ = content.Close() // only its size was asked for
		page.Artifact = &artifactInfo{view.Manifest.PatchHash, size}
	}
	if page.Changes, err = p.compared.of(r.Context(), view.Manifest.BaseRevision, view.Manifest.PatchHash); err != nil {
		return nil, err
	}
	return page, p.Store.View(r.Context(), func(reader workflow.Reader) error { return page.read(reader) })
}

// read adds what the records and the log know.
func (page *upgradePage) read(r workflow.Reader) error {
	_, sealed, err := r.Checkpoint()
	if err != nil {
		return err
	}
	page.Sealed = sealed
	records, err := r.Records(page.Upgrade.ID)
	if err != nil {
		return err
	}
	for _, seat := range page.row.Seats {
		info := seatInfo{Seat: seat, Name: string(seat.Person)}
		for _, record := range records {
			info.take(record)
		}
		page.Seats = append(page.Seats, info)
	}
	return nil
}

// take adds a person's note from the record that the seat stands for.
func (s *seatInfo) take(record workflow.Record) {
	if record.Person != s.Person || record.SignedAt != s.SignedAt {
		return
	}
	env, err := envelope.Parse(record.Body)
	if err != nil {
		return
	}
	s.KeyKind = "hardware key"
	if env.Signatures[0].WebAuthn != nil {
		s.KeyKind = "security key, in a browser"
	}
	var said struct {
		Notes  string `json:"notes"`
		Reason string `json:"reason"`
	}
	if envelope.DecodeForeign(env.Payload, &said) == nil {
		s.Notes = said.Notes + said.Reason // a record has one of them
	}
}

// nextStep says in one sentence what happens next and who may do it.
func nextStep(v workflow.View) string {
	who := names(v.Next.Who)
	switch v.Next.Action {
	case workflow.ActRequestApproval:
		return "Approvals can be asked for, by " + who + "."
	case workflow.ActTests:
		return "It goes on by itself once every required test has passed. Results come from " + who + "."
	case workflow.ActPolicy:
		return "The policy denies it, so nobody can approve. Satisfy the rule below, or propose it anew."
	case workflow.ActApprove:
		return count(v.Next.Missing, "more approval is", "more approvals are") + " needed, of " + who + "."
	case workflow.ActRatify:
		return "It is live without a quorum. " + count(v.Next.Missing, "more approval is", "more approvals are") + " needed to ratify it, of " + who + ". Otherwise the Kernel takes it back."
	case workflow.ActDecide:
		return "People must decide: leave it, or propose a rollback. That can be done by " + who + "."
	case workflow.ActKernel:
		return "Nobody has to do anything: the gateway is at work."
	}
	return "Nothing. It is over."
}

// names joins ids as a sentence has them.
func names(who []envelope.ID) string {
	text := ""
	for i, id := range who {
		switch {
		case i > 0 && i == len(who)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += string(id)
	}
	return text
}

func count(n int, one, more string) string {
	words := []string{"No", "One", "Two", "Three"}
	if n == 1 {
		return "One " + one
	}
	return words[min(max(n, 0), 3)] + " " + more
}

// whyNot says why this person cannot sign now; "" where they can.
func whyNot(v workflow.View, u user) string {
	at := slices.IndexFunc(v.Seats, func(s upgrade.Seat) bool { return s.Person == u.Person })
	switch {
	case at < 0:
		return "Only the five approvers can sign; you are signed in as " + string(u.Person) + "."
	case v.Upgrade.State == workflow.StateDraft, v.Upgrade.State == workflow.StatePaused:
		return "Approvals have not been asked for yet."
	case v.Upgrade.State != workflow.StatePendingApproval && v.Upgrade.State != workflow.StateEmergencyApplied:
		return "This upgrade takes no more approvals."
	case v.Policy != nil && !v.Policy.Allow && len(v.Policy.Violations) > 0:
		return "SentinelNet rule " + v.Policy.Violations[0].Rule + " denies it: " + v.Policy.Violations[0].Message
	case v.Seats[at].Status == upgrade.SeatApproved:
		return "You have signed already."
	case v.Seats[at].Status == upgrade.SeatSuspended:
		return "Your key is suspended; sign with another one."
	}
	return ""
}

// eventNames are the log's events as words; it has every type of PROTOCOL
// section 10, so that pages follow each.
var eventNames = map[string]string{
	auditlog.UpgradeCreated: "Proposed", auditlog.UpgradeTestsReported: "Test result", auditlog.UpgradePaused: "Paused",
	auditlog.UpgradePendingApproval: "Approvals asked for", auditlog.UpgradeTestsRequested: "More tests asked for",
	auditlog.ApprovalSubmitted: "Approved", auditlog.ApprovalRejected: "Rejected by one", auditlog.ApprovalInvalid: "An approval did not verify",
	auditlog.ApprovalStale: "An approval is too old", auditlog.UpgradeQuorumReached: "Quorum reached", auditlog.UpgradeApplying: "About to be applied",
	auditlog.UpgradeApplied: "Applied", auditlog.UpgradeApplyFailed: "Applying failed", auditlog.UpgradeEmergencyApplied: "Applied as an emergency",
	auditlog.UpgradeRatified: "Ratified", auditlog.UpgradeRatificationFailed: "Not ratified in time", auditlog.UpgradeCanaryPassed: "Canary passed",
	auditlog.UpgradeCanaryFailed: "Canary failed", auditlog.UpgradeRollback: "Rollback", auditlog.UpgradeCompleted: "Completed",
	auditlog.UpgradeRejected: "Rejected", auditlog.UpgradeExpired: "Expired", auditlog.RegistryUpdated: "New registry in force",
	auditlog.RegistryKeySuspended: "A key was suspended", auditlog.KeyDelegated: "New event key", auditlog.GuardDenied: "The guard refused",
}

func (p *Pad) signIn(w http.ResponseWriter, r *http.Request) error {
	u, _ := p.user(r)
	p.render(w, r, http.StatusOK, "sign-in", frame{Title: "Sign in", User: u})
	return nil
}

func (p *Pad) enrol(w http.ResponseWriter, r *http.Request) error {
	p.render(w, r, http.StatusOK, "enrol", frame{Title: "Enrol a passkey"})
	return nil
}
