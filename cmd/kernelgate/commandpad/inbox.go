package commandpad

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// perList is how many upgrades the inbox shows of those under way, and of those done.
const perList = 30

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
	Search, Target, State string
	Targets               []envelope.ID
	States                []workflow.State
	Filtered              bool // by any of the three
	Sections              []section
	MoreOpen, Older       string // addresses of what did not fit
}

type section struct {
	Name, Empty string
	Rows        []row
}

// inbox is the list of upgrades. Its address says what is searched for, and
// the store searches all of them.
func (p *Pad) inbox(w http.ResponseWriter, r *http.Request, u user) error {
	query := r.URL.Query()
	page := inboxPage{Search: clipped(query.Get("q")), Target: clipped(query.Get("target")), State: clipped(query.Get("state")),
		Targets: p.Targets, States: append(slices.Clone(underWay), over...)}
	page.Filtered = page.Search != "" || page.Target != "" || page.State != ""
	ask := workflow.Page{Target: envelope.ID(page.Target), Search: page.Search, Limit: perList}
	open, moreOpen, err := p.listed(r, ask, underWay, query.Get("open"), page.State, u)
	if err != nil {
		return err
	}
	done, older, err := p.listed(r, ask, over, query.Get("after"), page.State, u)
	if err != nil {
		return err
	}
	page.MoreOpen, page.Older = onward(query, "open", moreOpen), onward(query, "after", older)
	page.Sections = sort(append(open, done...))
	p.render(w, r, http.StatusOK, "inbox", frame{Title: "Upgrades", User: u, Place: "inbox", Page: page})
	return nil
}

// listed are the rows in some states; in one of them alone where the reader
// asks for it.
func (p *Pad) listed(r *http.Request, ask workflow.Page, states []workflow.State, cursor, only string, u user) ([]row, string, error) {
	ask.States, ask.Cursor = states, clipped(cursor)
	if only != "" {
		ask.States = []workflow.State{workflow.State(only)}
		if !slices.Contains(states, ask.States[0]) {
			return nil, "", nil
		}
	}
	rows, next, err := p.rows(r, ask, u)
	if ask.Cursor != "" && failure.ClassOf(err) == failure.FieldInvalid {
		return nil, "", workflow.ErrNotFound // an address that no page gave
	}
	return rows, next, err
}

// onward is this page's address with a cursor; "" where there is none.
func onward(query url.Values, name, cursor string) string {
	if cursor == "" {
		return ""
	}
	query = maps.Clone(query)
	query.Set(name, cursor)
	return "/?" + query.Encode()
}

// clipped bounds what a reader searches for.
func clipped(text string) string { return text[:min(len(text), 200)] }

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

func rowOf(v workflow.View, u user) row {
	return row{View: v, Intent: firstLine(v.Manifest.Rationale), Blocks: blockedBy(v), Yours: waitsFor(v, u)}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// blockedBy names the rule or the test that holds an open upgrade up.
func blockedBy(v workflow.View) string {
	if v.Policy != nil && !v.Policy.Allow && len(v.Policy.Violations) > 0 {
		return "rule " + v.Policy.Violations[0].Rule
	}
	if v.Upgrade.State == workflow.StatePaused && len(v.UnmetTests) > 0 {
		return "test " + v.UnmetTests[0] + " has not passed"
	}
	return ""
}

// waitsFor says whether the next step is this person's.
func waitsFor(v workflow.View, u user) bool { return slices.Contains(v.Next.Who, u.Person) }
