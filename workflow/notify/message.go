package notify

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// ExpiryWarning is the type of the one message that no event stands for.
const ExpiryWarning = "upgrade.expires_soon"

// Message is what one receiver is told, once or more often: ID tells repeats.
type Message struct {
	ID        string
	Type      string
	Kernel    envelope.ID
	Time      envelope.Time
	UpgradeID envelope.UUID
	Target    envelope.ID
	Actor     envelope.ID
	Title     string // one line
	Text      string // a few lines: what, who, until when, where
	Link      string
	High      bool
	People    []envelope.ID // whom it concerns, by ID
	Auditors  bool
}

// rule is who hears of a type of event, and in what words.
type rule struct {
	approvers, requestor, auditors, actor bool
	high                                  bool
	title                                 string // %s is "the upgrade of TARGET"
	deadline                              bool   // the text says until when
}

// rules are all event types that concern people. What is not here is for the
// log alone.
var rules = map[string]rule{
	auditlog.UpgradeCreated:            {requestor: true, title: "%s was submitted"},
	auditlog.UpgradePaused:             {requestor: true, title: "%s is paused: a test failed or is missing"},
	auditlog.UpgradePendingApproval:    {approvers: true, deadline: true, title: "%s waits for your approval"},
	auditlog.UpgradeTestsRequested:     {requestor: true, title: "%s: an approver asks for further tests"},
	auditlog.ApprovalSubmitted:         {requestor: true, deadline: true, title: "%s was approved by one more person"},
	auditlog.ApprovalRejected:          {approvers: true, requestor: true, title: "%s was rejected by one person"},
	auditlog.ApprovalInvalid:           {auditors: true, title: "%s: an approval did not verify"},
	auditlog.ApprovalStale:             {actor: true, deadline: true, title: "%s: your approval no longer counts; please sign again"},
	auditlog.UpgradeQuorumReached:      {approvers: true, requestor: true, title: "%s has its quorum"},
	auditlog.UpgradeApplied:            {approvers: true, requestor: true, title: "%s is live"},
	auditlog.UpgradeApplyFailed:        {approvers: true, requestor: true, auditors: true, high: true, title: "%s could not be applied"},
	auditlog.UpgradeEmergencyApplied:   {approvers: true, requestor: true, auditors: true, high: true, title: "EMERGENCY: %s is live without a quorum; please ratify it or let it be rolled back"},
	auditlog.UpgradeRatified:           {approvers: true, requestor: true, auditors: true, title: "%s: the emergency was ratified"},
	auditlog.UpgradeRatificationFailed: {approvers: true, requestor: true, auditors: true, high: true, title: "%s: the emergency was not ratified in time"},
	auditlog.UpgradeCanaryPassed:       {requestor: true, title: "%s: the canary passed"},
	auditlog.UpgradeCanaryFailed:       {approvers: true, requestor: true, auditors: true, high: true, title: "%s: the canary failed"},
	auditlog.UpgradeRollback:           {approvers: true, requestor: true, auditors: true, title: "%s was rolled back"},
	auditlog.UpgradeCompleted:          {approvers: true, requestor: true, title: "%s is complete"},
	auditlog.UpgradeRejected:           {approvers: true, requestor: true, title: "%s was rejected"},
	auditlog.UpgradeExpired:            {approvers: true, requestor: true, title: "%s expired"},
	auditlog.RegistryUpdated:           {approvers: true, auditors: true, title: "The key registry has a new version; approvals of open upgrades must be signed again"},
	auditlog.RegistryKeySuspended:      {approvers: true, auditors: true, high: true, title: "A key was suspended"},
	auditlog.GuardDenied:               {auditors: true, high: true, title: "The guard refused to sign"},
}

// endings are the titles of upgrade.completed where people, or another upgrade,
// ended it, by the event's code.
var endings = map[string]string{
	"kept":       "%s stays: its canary failed, and three rejected the rollback",
	"superseded": "%s is over: another upgrade is live in its place",
}

// composer knows who is who, as the store has it now.
type composer struct {
	link      string
	approvers []envelope.ID
}

// event is the message of an event, false where it concerns nobody. u is nil
// for events about no upgrade.
func (c composer) event(e auditlog.Event, u *workflow.Upgrade) (Message, bool) {
	r, ok := rules[e.Type]
	if !ok {
		return Message{}, false
	}
	m := Message{ID: fmt.Sprintf("%s/%d", e.KernelID, e.Seq), Type: e.Type, Kernel: e.KernelID, Time: e.Time, UpgradeID: e.UpgradeID, Actor: e.Actor, High: r.high, Auditors: r.auditors}
	if e.Type == auditlog.UpgradeCompleted {
		r.title = cmp.Or(endings[e.Data.Text("code")], r.title)
	}
	if r.approvers {
		m.People = append(m.People, c.approvers...)
	}
	if r.actor {
		m.People = append(m.People, e.Actor)
	}
	if u == nil {
		c.write(&m, strings.TrimPrefix(strings.ReplaceAll(r.title, "%s", ""), ": "), nil, false)
		return m, true
	}
	if r.requestor {
		m.People = append(m.People, u.ProposedBy)
	}
	c.write(&m, r.title, u, r.deadline)
	return m, true
}

// expiry is the warning to those who have not decided yet.
func (c composer) expiry(kernel envelope.ID, u *workflow.Upgrade, waiting []envelope.ID, now envelope.Time) Message {
	m := Message{ID: fmt.Sprintf("%s/%s/expiry", kernel, u.ID), Type: ExpiryWarning, Kernel: kernel, Time: now, UpgradeID: u.ID, People: waiting}
	c.write(&m, "%s expires soon and waits for your decision", u, true)
	return m
}

func (c composer) write(m *Message, title string, u *workflow.Upgrade, deadline bool) {
	var text strings.Builder
	if u == nil {
		m.Title = title
	} else {
		m.Target = u.Target
		m.Title = strings.ReplaceAll(title, "%s", "The upgrade of "+string(u.Target))
	}
	fmt.Fprintf(&text, "%s.\n", m.Title)
	if u != nil {
		fmt.Fprintf(&text, "Upgrade %s (%s), proposed by %s.\n", u.ID, u.Type, u.ProposedBy)
	}
	if m.Actor != "" && (u == nil || m.Actor != u.ProposedBy) {
		fmt.Fprintf(&text, "By %s, %s.\n", m.Actor, m.Time)
	}
	if deadline {
		fmt.Fprintf(&text, "Until %s.\n", u.ExpiresAt)
	}
	if c.link != "" {
		m.Link = strings.TrimSuffix(c.link, "/")
		if u != nil {
			m.Link += "/upgrades/" + string(u.ID)
		}
		fmt.Fprintf(&text, "%s\n", m.Link)
	}
	m.Text = text.String()
}
