package commandpad

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// perList is how many upgrades the inbox shows of those under way, and of those done.
const perList = 50

var (
	underWay = []workflow.State{
		workflow.StateDraft, workflow.StatePaused, workflow.StatePendingApproval, workflow.StateQuorumReached, workflow.StateApplying,
		workflow.StateApplied, workflow.StateValidating, workflow.StateEmergencyApplied, workflow.StateRollbackScheduled,
	}
	over = []workflow.State{
		workflow.StateCompleted, workflow.StateRejected, workflow.StateExpired, workflow.StateRolledBack, workflow.StateApplyFailed,
	}
)

// row is one upgrade in a list.
type row struct {
	workflow.View
	Intent string // one line
	Blocks string // the rule or test that holds it up; "" for none
	Yours  bool
}

// Signed is how many approvals count.
func (r row) Signed() int {
	n := 0
	for _, s := range r.Seats {
		if s.Status == upgrade.SeatApproved {
			n++
		}
	}
	return n
}

// TestsPassed is how many of the required tests have passed.
func (r row) TestsPassed() int {
	n := 0
	for _, t := range r.Tests {
		if t.Result != "FAILED" {
			n++
		}
	}
	return n
}

type inboxPage struct {
	Search, Target string
	Sections       []section
	Older          string // the address of older ones that are done
}

type section struct {
	Name, Empty string
	Rows        []row
}

func (p *Pad) inbox(w http.ResponseWriter, r *http.Request, u user) error {
	query := r.URL.Query()
	page := inboxPage{Search: query.Get("q"), Target: query.Get("target")}
	open, _, err := p.rows(r, workflow.Page{States: underWay, Target: envelope.ID(page.Target), Limit: perList}, u)
	if err != nil {
		return err
	}
	done, next, err := p.rows(r, workflow.Page{States: over, Target: envelope.ID(page.Target), Limit: perList, Cursor: query.Get("after")}, u)
	if err != nil {
		return err
	}
	if next != "" {
		query.Set("after", next)
		page.Older = "/?" + query.Encode()
	}
	page.Sections = sort(slices.DeleteFunc(append(open, done...), func(r row) bool { return !r.matches(page.Search) }))
	p.render(w, r, http.StatusOK, "inbox", frame{Title: "Upgrades", User: u, Place: "inbox", Page: page})
	return nil
}

// sort puts each row where it belongs; each section says what its emptiness means.
func sort(rows []row) []section {
	sections := []section{
		{Name: "Needs you", Empty: "Nothing waits for you."},
		{Name: "Waiting for others", Empty: "Nobody else is being waited for."},
		{Name: "Blocked", Empty: "No rule and no test holds anything up."},
		{Name: "Done", Empty: "Nothing is done yet."},
	}
	for _, r := range rows {
		at := 1
		switch {
		case slices.Contains(over, r.Upgrade.State):
			at = 3
		case r.Blocks != "":
			at = 2
		case r.Yours:
			at = 0
		}
		sections[at].Rows = append(sections[at].Rows, r)
	}
	return sections
}

func (p *Pad) rows(r *http.Request, page workflow.Page, u user) (rows []row, next string, err error) {
	var list []workflow.Upgrade
	err = p.Store.View(r.Context(), func(reader workflow.Reader) error {
		list, next, err = reader.Upgrades(page)
		return err
	})
	for _, up := range list {
		view, viewErr := p.Engine.Upgrade(r.Context(), up.ID)
		if viewErr != nil {
			return nil, "", viewErr
		}
		rows = append(rows, rowOf(view, u))
	}
	return rows, next, err
}

func rowOf(v workflow.View, u user) row {
	return row{View: v, Intent: firstLine(v.Manifest.Rationale), Blocks: blockedBy(v), Yours: waitsFor(v, u)}
}

func (r row) matches(search string) bool {
	text := strings.ToLower(strings.Join([]string{r.Intent, string(r.Upgrade.ID), string(r.Upgrade.Target), string(r.Upgrade.ProposedBy)}, " "))
	return strings.Contains(text, strings.ToLower(search))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// blockedBy names the rule or the test that holds an open upgrade up.
func blockedBy(v workflow.View) string {
	if v.Policy != nil && !v.Policy.Allow && len(v.Policy.Violations) > 0 {
		return "policy rule " + v.Policy.Violations[0].Rule
	}
	if v.Upgrade.State == workflow.StatePaused && len(v.UnmetTests) > 0 {
		return "test " + v.UnmetTests[0] + " has not passed"
	}
	return ""
}

// waitsFor says whether the next step is this person's.
func waitsFor(v workflow.View, u user) bool { return slices.Contains(v.Next.Who, u.Person) }
