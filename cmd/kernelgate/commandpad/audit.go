package commandpad

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	// perAudit is how many events one page of the log shows.
	perAudit = 100
	// maxLooked is how many events are looked at for one page of a filter.
	maxLooked = 5000
)

// auditPage is a stretch of the log, newest first.
type auditPage struct {
	Events       []workflow.StoredEvent
	Size         int64
	Sealed       int64
	Witnessed    int64
	Checkpoint   string
	Kind         string // shown alone where not ""
	Kinds        map[string]string
	From, Before int64 // the stretch that was looked at: From <= seq < Before
	Older        string
	Verify       string // the address that checks this stretch
	Verdict      *verdict
}

func (p *Pad) audit(w http.ResponseWriter, r *http.Request, u user) error {
	query := r.URL.Query()
	page := auditPage{Kind: query.Get("type"), Kinds: eventNames}
	err := p.Store.View(r.Context(), func(reader workflow.Reader) (err error) {
		if page.Size, err = reader.LogSize(); err != nil {
			return err
		}
		if page.Checkpoint, page.Sealed, err = reader.Checkpoint(); err != nil {
			return err
		}
		if page.Witnessed, err = witnessed(reader); err != nil {
			return err
		}
		if err := page.look(reader, query.Get("before")); err != nil {
			return err
		}
		if query.Has("verify") {
			page.Verdict, err = p.verify(reader, page.Checkpoint, page.From, page.Before)
		}
		return err
	})
	if err != nil {
		return err
	}
	if page.From > 0 {
		page.Older = auditAddress(page.Kind, page.From, false)
	}
	page.Verify = auditAddress(page.Kind, page.Before, true)
	p.render(w, r, http.StatusOK, "audit", frame{Title: "Audit log", User: u, Place: "audit", Page: page})
	return nil
}

// verify checks a stretch by the registry's whole chain, from the pinned root.
func (p *Pad) verify(reader workflow.Reader, note string, from, before int64) (*verdict, error) {
	entries, err := reader.Registry()
	if err != nil {
		return nil, err
	}
	regs, err := keyregistry.AcceptChain(p.Engine.Root, entries)
	if err != nil {
		return nil, err
	}
	return verify(reader, regs, note, from, before)
}

func auditAddress(kind string, before int64, verify bool) string {
	query := url.Values{"before": {strconv.FormatInt(before, 10)}}
	if kind != "" {
		query.Set("type", kind)
	}
	if verify {
		query.Set("verify", "1")
	}
	return "/audit?" + query.Encode()
}

// look goes back from an event until the page is full, or enough was looked at.
func (page *auditPage) look(reader workflow.Reader, before string) error {
	end, err := strconv.ParseInt(before, 10, 64)
	if err != nil || end < 0 || end > page.Size {
		end = page.Size
	}
	page.From, page.Before = end, end
	for page.From > 0 && len(page.Events) < perAudit && end-page.From < maxLooked {
		from := max(0, page.From-perAudit)
		events, err := reader.Events(from, int(page.From-from))
		if err != nil {
			return err
		}
		for _, e := range slices.Backward(events) {
			if page.Kind == "" || e.Event.Type == page.Kind {
				page.Events = append(page.Events, e)
			}
		}
		page.From = from
	}
	return nil
}
