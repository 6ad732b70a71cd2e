package commandpad

import (
	"net/http"
	"strconv"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// perAudit is how many events one page of the log shows.
const perAudit = 100

// auditPage is a stretch of the log, newest first.
type auditPage struct {
	Events       []workflow.StoredEvent
	Size, Sealed int64
	Checkpoint   string
	Kind         string // shown alone where not ""
	Kinds        map[string]string
	Older        int64 // where the stretch before this one ends; 0 for none
}

func (p *Pad) audit(w http.ResponseWriter, r *http.Request, u user) error {
	page := auditPage{Kind: r.URL.Query().Get("type"), Kinds: eventNames}
	err := p.Store.View(r.Context(), func(reader workflow.Reader) (err error) {
		if page.Size, err = reader.LogSize(); err != nil {
			return err
		}
		if page.Checkpoint, page.Sealed, err = reader.Checkpoint(); err != nil {
			return err
		}
		end, parseErr := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64)
		if parseErr != nil || end < 0 || end > page.Size {
			end = page.Size
		}
		page.Older = max(0, end-perAudit)
		events, err := reader.Events(page.Older, int(end-page.Older))
		for i := len(events) - 1; i >= 0; i-- {
			if page.Kind == "" || events[i].Event.Type == page.Kind {
				page.Events = append(page.Events, events[i])
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "audit", frame{Title: "Audit log", User: u, Place: "audit", Page: page})
	return nil
}

// systemPage says what works, from checks made for it.
type systemPage struct {
	Checks  []checked
	Guard   workflow.GuardStatus
	Policy  envelope.Digest
	Engine  string
	Size    int64
	Sealed  int64
	Targets []workflow.Target
}

type checked struct {
	Name string
	Err  error
}

func (p *Pad) system(w http.ResponseWriter, r *http.Request, u user) error {
	page := systemPage{Policy: p.Engine.Policy.Digest(), Engine: p.Engine.Policy.Engine()}
	for _, c := range p.Checks {
		page.Checks = append(page.Checks, checked{c.Name, c.Run(r.Context())})
	}
	var err error
	if page.Guard, err = p.Engine.Guard.Status(r.Context()); err != nil {
		page.Guard.Reason = "it does not answer"
	}
	err = p.Store.View(r.Context(), func(reader workflow.Reader) (err error) {
		if page.Size, err = reader.LogSize(); err != nil {
			return err
		}
		if _, page.Sealed, err = reader.Checkpoint(); err != nil {
			return err
		}
		for _, name := range p.Targets {
			target, err := reader.Target(name)
			if err != nil {
				return err
			}
			target.Name = name
			page.Targets = append(page.Targets, target)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "system", frame{Title: "System", User: u, Place: "system", Page: page})
	return nil
}
