package commandpad

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// parsePages makes one template of each page with the base and the parts.
func parsePages(a assets) (map[string]*template.Template, error) {
	dir := subFiles("templates")
	functions := template.FuncMap{
		"asset": a.url, "state": stateName, "tone": stateTone, "ago": ago, "left": left, "short": short, "lower": strings.ToLower,
		"bytes": byteSize, "seat": seatName, "origin": originName, "event": eventName, "money": money, "item": newItem, "mark": markName, "days": span, "eventTypes": eventTypes, "bundled": bundled, "deref": func(t *envelope.Time) envelope.Time { return *t },
		"sub": func(a, b int64) int64 { return a - b },
	}
	base, err := template.New("base").Funcs(functions).ParseFS(dir, "base.html", "part-*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(dir, "*.html")
	pages := map[string]*template.Template{}
	for _, name := range names {
		if name == "base.html" || strings.HasPrefix(name, "part-") {
			continue
		}
		page, cloneErr := base.Clone()
		if cloneErr == nil {
			page, cloneErr = page.ParseFS(dir, name)
		}
		err = errors.Join(err, cloneErr)
		pages[strings.TrimSuffix(name, ".html")] = page
	}
	return pages, err
}

// render writes a page whole or, where its template fails, not at all.
func (p *Pad) render(w http.ResponseWriter, r *http.Request, status int, name string, f frame) {
	f.Now = p.now()
	f.From, _ = r.Context().Value(logEnd{}).(int64) // none on pages that follow nothing
	if f.User.Person != "" {
		var err error
		if f.Emergencies, err = p.emergencies(r); err != nil {
			p.Logger.ErrorContext(r.Context(), "emergencies could not be looked up", "err", err)
		}
	}
	var out bytes.Buffer
	if err := p.pages[name].ExecuteTemplate(&out, "base", f); err != nil {
		p.Logger.ErrorContext(r.Context(), "a template failed", "page", name, "err", err)
		http.Error(w, "This page could not be made; the gateway's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	// Any text of a page may be a proposer's: an intent, a file's name, a line of a
	// diff. The pages' own text has nothing that is hidden.
	_, _ = io.WriteString(w, envelope.Reveal(out.String())) // the reader may have gone
}

var stateNames = map[workflow.State]string{
	workflow.StateDraft: "Draft", workflow.StatePaused: "Paused", workflow.StatePendingApproval: "Pending approval",
	workflow.StateQuorumReached: "Quorum reached", workflow.StateApplying: "Applying", workflow.StateApplied: "Applied",
	workflow.StateValidating: "Watching", workflow.StateCompleted: "Completed", workflow.StateRejected: "Rejected",
	workflow.StateExpired: "Expired", workflow.StateRolledBack: "Rolled back", workflow.StateEmergencyApplied: "Emergency, not ratified",
	workflow.StateRollbackScheduled: "Rollback scheduled", workflow.StateApplyFailed: "Apply failed",
}

func stateName(s workflow.State) string { return stateNames[s] }

// stateTone is the colour of a state: never its only sign, its name stands beside it.
func stateTone(s workflow.State) string {
	switch s {
	case workflow.StateCompleted, workflow.StateApplied:
		return "good"
	case workflow.StateRejected, workflow.StateApplyFailed, workflow.StateEmergencyApplied, workflow.StateRollbackScheduled:
		return "bad"
	case workflow.StatePaused, workflow.StateExpired, workflow.StateRolledBack:
		return "warn"
	case workflow.StateDraft:
		return "quiet"
	}
	return "busy"
}

var seatNames = map[upgrade.SeatStatus]string{
	upgrade.SeatWaiting: "waiting", upgrade.SeatApproved: "signed", upgrade.SeatRejected: "rejected",
	upgrade.SeatStale: "signed too long ago", upgrade.SeatSuspended: "key suspended", upgrade.SeatVoid: "must sign again",
}

func seatName(s upgrade.SeatStatus) string { return seatNames[s] }

// ago says how long ago t was, in the largest unit that fits.
func ago(now, t envelope.Time) string {
	d := now.Sub(t)
	if d < 60 {
		return "just now"
	}
	return span(d) + " ago"
}

// left says how long it is until t.
func left(now, t envelope.Time) string {
	d := t.Sub(now)
	if d <= 0 {
		return "over"
	}
	return span(d) + " left"
}

func span(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int64(d / unit.size); n == 1 && d%unit.size == 0 {
			return "1 " + unit.name
		} else if n > 1 { // 47 hours say more than 1 day
			return strconv.FormatInt(n, 10) + " " + unit.name + "s"
		}
	}
	if seconds >= 60 {
		return "1 minute"
	}
	return "less than a minute"
}

// short is a digest's or id's beginning, for the eye; the whole stands in its title.
func short(v any) string {
	text := strings.TrimPrefix(fmt.Sprint(v), "sha256:")
	return text[:min(len(text), 12)]
}

// byteSize is a size in binary units.
func byteSize(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	value := float64(n)
	unit := -1
	for value >= 1024 && unit < 3 {
		value /= 1024
		unit++
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}

// item is a row with what its template asks besides.
type item struct {
	Now  envelope.Time
	R    row
	Open bool
}

func newItem(now envelope.Time, r row, open bool) item { return item{now, r, open} }

// money is an amount in its currency; all currencies are shown with two decimals.
func money(c *upgrade.Cost) string {
	return fmt.Sprintf("%d.%02d %s", c.MinorUnits/100, c.MinorUnits%100, c.Currency)
}

// eventName is an event's type as words.
func eventName(name string) string {
	if text, ok := eventNames[name]; ok {
		return text
	}
	return name
}

// markName is the class of a diff's line.
func markName(mark byte) string {
	switch mark {
	case '+':
		return "add"
	case '-':
		return "del"
	case '@':
		return "at"
	}
	return "same"
}

// bundled says whether an event is of an upgrade that has a record of the
// Kernel, and so a bundle.
func bundled(kind string) bool {
	return slices.Contains([]string{auditlog.UpgradeApplied, auditlog.UpgradeEmergencyApplied, auditlog.UpgradeRatified, auditlog.UpgradeCompleted}, kind)
}

// eventTypes are all types, for the script that follows the log.
func eventTypes() string {
	return strings.Join(slices.Sorted(maps.Keys(eventNames)), " ")
}
