package commandpad

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/changes"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// upgradePage is all of one upgrade, in the order in which people ask.
type upgradePage struct {
	row
	Root      envelope.Digest // pinned, for kgverify
	Step      string          // the exact next step, and who may take it
	Sealed    int64           // events below this seq are under a signed checkpoint
	Witnessed int64           // and below this one under one that witnesses have cosigned
	Artifact  *artifactInfo
	Payload   string // the manifest's canonical bytes
	Fields    []field
	Seats     []seatInfo
	Runs      []testRun
	Asked     []testRequest
	Changes   *changes.Set
	Canary    canaryInfo
	CanSign   string // why this person cannot sign now; "" where they can
	Standing  string // what they should know before they sign; "" for nothing
}

type artifactInfo struct {
	Digest envelope.Digest
	Size   int64
}

// seatInfo is a seat with what its holder said.
type seatInfo struct {
	upgrade.Seat
	Name, Role, KeyKind, Notes string
	Preapproved                bool
}

// Open says whether people still sign about it.
func (page *upgradePage) Open() bool {
	return slices.Contains([]workflow.State{workflow.StatePendingApproval, workflow.StateQuorumReached, workflow.StateEmergencyApplied}, page.Upgrade.State)
}

// Ratify says whether an approval now ratifies what is live already.
func (page *upgradePage) Ratify() bool { return page.Upgrade.State == workflow.StateEmergencyApplied }

// More is what the rationale says after its first line.
func (page *upgradePage) More() string {
	_, more, _ := strings.Cut(page.Manifest.Rationale, "\n")
	return strings.TrimSpace(more)
}

// Mixed are words that mix alphabets, in what the proposer wrote and in the
// names of the files.
func (page *upgradePage) Mixed() []string {
	m := page.Manifest
	texts := append([]string{m.Rationale, m.Impact.Downtime, m.Target.Repository, m.Target.Path, m.Target.ManifestID}, m.Impact.Components...)
	for _, file := range page.Changes.Files {
		texts = append(texts, file.Path)
	}
	words := mixed(texts...)
	return words[:min(len(words), 10)]
}

// Extent is the size of the change in a few words.
func (page *upgradePage) Extent() string {
	if page.Changes.Note != "" {
		return "not compared here"
	}
	n := len(page.Changes.Files)
	if len(page.Changes.Patch) > 0 {
		return "a patch of " + strconv.Itoa(len(page.Changes.Patch)) + " lines"
	}
	if n == 1 {
		return "1 file"
	}
	return strconv.Itoa(n) + " files"
}

// Watched says whether there is anything to say about a canary.
func (page *upgradePage) Watched() bool { return page.Canary.Waiting || len(page.Canary.Checks) > 0 }

// HasRecord says whether the Kernel has signed a record of it.
func (page *upgradePage) HasRecord() bool {
	return page.Upgrade.BundleDigest != (envelope.Digest{}) && !slices.Contains([]workflow.State{workflow.StateQuorumReached, workflow.StateApplying, workflow.StateRejected}, page.Upgrade.State)
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
	reg, err := p.Engine.Registry(r.Context())
	if err != nil {
		return nil, err
	}
	page := &upgradePage{row: rowOf(view, u), Payload: string(view.Envelope.Payload), Fields: fieldsOf(&view.Manifest)}
	page.Root, page.Step = p.Engine.Root, nextStep(view)
	page.CanSign, page.Standing = whyNot(view, reg, u)
	content, size, err := p.Artifacts.Open(r.Context(), view.Manifest.PatchHash)
	if err == nil {
		_ = content.Close() // only its size was asked for
		page.Artifact = &artifactInfo{view.Manifest.PatchHash, size}
	}
	if page.Changes, err = p.compared.of(r.Context(), view.Manifest.BaseRevision, view.Manifest.PatchHash); err != nil {
		return nil, err
	}
	return page, p.Store.View(r.Context(), func(reader workflow.Reader) error { return page.read(reader, reg) })
}

// cosigned is what a store knows of the log's witnesses, where it keeps them.
type cosigned interface {
	CosignedCheckpoint() (note string, size int64, err error)
}

// read adds what the records and the log know.
func (page *upgradePage) read(r workflow.Reader, reg *keyregistry.Registry) (err error) {
	if _, page.Sealed, err = r.Checkpoint(); err != nil {
		return err
	}
	if page.Witnessed, err = witnessed(r); err != nil {
		return err
	}
	records, err := r.Records(page.Upgrade.ID)
	if err != nil {
		return err
	}
	for _, seat := range page.row.Seats {
		info := seatInfo{Seat: seat, Name: string(seat.Person)}
		if a, ok := reg.Approver(seat.Person); ok {
			info.Name, info.Role = a.Name, string(a.Role)
		}
		for _, record := range records {
			info.take(record, reg)
		}
		page.Seats = append(page.Seats, info)
	}
	for _, record := range records {
		switch record.Kind {
		case workflow.KindCanaryBaseline, workflow.KindCanaryReport:
			if err := page.Canary.take(record); err != nil {
				return err
			}
		case workflow.KindTestRequest:
			page.Asked = append(page.Asked, requestOf(record))
		}
	}
	page.Canary.Waiting = page.Upgrade.State == workflow.StateValidating && page.Canary.After == nil
	page.Canary.draw()
	page.Runs = runsOf(page.Manifest.Preconditions.Tests, page.Tests, records)
	return nil
}

func witnessed(r workflow.Reader) (int64, error) {
	c, ok := r.(cosigned)
	if !ok {
		return 0, nil
	}
	_, size, err := c.CosignedCheckpoint()
	if errors.Is(err, workflow.ErrNotFound) {
		return 0, nil
	}
	return size, err
}

// take adds a person's note from the record that the seat stands for.
func (s *seatInfo) take(record workflow.Record, reg *keyregistry.Registry) {
	if record.Person != s.Person || record.SignedAt != s.SignedAt {
		return
	}
	env, err := envelope.Parse(record.Body)
	if err != nil || record.Kind != workflow.KindApproval && record.Kind != workflow.KindRejection {
		return
	}
	s.KeyKind = keyKind(reg, env.Signatures[0])
	var said struct {
		Notes  string `json:"notes"`
		Reason string `json:"reason"`
		Pre    bool   `json:"rollbackPreapproved"`
	}
	if envelope.DecodeForeign(env.Payload, &said) == nil {
		s.Notes, s.Preapproved = said.Notes+said.Reason, said.Pre // a record has a note or a reason
	}
}

var originNames = map[keyregistry.Origin]string{
	keyregistry.OriginPKCS11: "token or smartcard", keyregistry.OriginAWSKMS: "key in AWS KMS", keyregistry.OriginGCPKMS: "key in Cloud KMS",
	keyregistry.OriginWebAuthn: "security key, in a browser", keyregistry.OriginFile: "key in a file, for tests",
}

func originName(o keyregistry.Origin) string { return originNames[o] }

// keyKind says what kind of key made a signature.
func keyKind(reg *keyregistry.Registry, sig envelope.Signature) string {
	if entry, err := reg.Lookup(sig.KeyID); err == nil {
		return originNames[entry.Key.Origin]
	}
	if sig.WebAuthn != nil {
		return originNames[keyregistry.OriginWebAuthn]
	}
	return "key that the registry in force no longer has"
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
		if v.Manifest.BaseRevision == upgrade.None {
			return "People must decide. There is nothing to go back to, so a further upgrade is to be proposed. That can be done by " + who + "."
		}
		return "People must decide: propose a rollback, which three approve to take it back or reject to keep it, or a further upgrade. That can be done by " + who + "."
	case workflow.ActKernel:
		if v.Upgrade.State == workflow.StateRollbackScheduled && v.Upgrade.RollbackID != "" {
			return "The Kernel has proposed to roll it back; that upgrade's page says what it waits for."
		}
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

// whyNot says why this person cannot sign now, "" where they can; and what they
// should know before.
func whyNot(v workflow.View, reg *keyregistry.Registry, u user) (why, note string) {
	at := slices.IndexFunc(v.Seats, func(s upgrade.Seat) bool { return s.Person == u.Person })
	rules := reg.Rules()
	switch {
	case at < 0:
		return "Only the five approvers can sign; you are signed in as " + string(u.Person) + ".", ""
	case u.Role != roleApprover && u.Role != roleOperator:
		return "You are signed in with the role " + u.Role + ", which only reads here.", ""
	case v.Upgrade.State == workflow.StateDraft, v.Upgrade.State == workflow.StatePaused:
		return "Approvals have not been asked for yet.", ""
	case v.Upgrade.State == workflow.StateQuorumReached:
		return "The quorum stands; the gateway is about to apply it.", ""
	case v.Upgrade.State != workflow.StatePendingApproval && v.Upgrade.State != workflow.StateEmergencyApplied:
		return "This upgrade takes no more approvals.", ""
	case v.Policy != nil && !v.Policy.Allow && len(v.Policy.Violations) > 0:
		return "SentinelNet rule " + v.Policy.Violations[0].Rule + " denies it: " + v.Policy.Violations[0].Message, ""
	case rules.SeparationOfDuties && v.Upgrade.ProposedBy == u.Person:
		return "You proposed it, and the registry asks that others approve.", ""
	}
	switch v.Seats[at].Status {
	case upgrade.SeatApproved:
		return "You have signed already.", ""
	case upgrade.SeatSuspended:
		return "Your key is suspended; sign with another one.", ""
	case upgrade.SeatVoid:
		note = "A new registry is in force since you signed, so your approval no longer counts. Read again, and sign again."
	case upgrade.SeatStale:
		note = "You signed too long ago for it to count. Read again, and sign again."
	case upgrade.SeatRejected:
		note = "You have rejected it. If you sign now, your approval counts instead."
	}
	if n := rules.MinNonBrowserApprovals; n > 0 && note == "" {
		note = count(int(n), "of the three approvals must come from a key outside the browser.", "of the three approvals must come from keys outside the browser.")
	}
	return "", note
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
