package commandpad

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	// checkTime bounds what is tried for the page.
	checkTime = 10 * time.Second
	// checkFor is how long an answer serves: who loads the page again and again
	// does not use the token each time.
	checkFor = 5 * time.Second
)

// systemPage says what works, from checks made for it.
type systemPage struct {
	state
	Policy envelope.Digest
	Engine string
	Size   int64
	Sealed int64
}

// state is what was found by trying.
type state struct {
	At      envelope.Time
	Checks  []checked
	Guard   workflow.GuardStatus
	Targets []checkedTarget
}

type checked struct {
	Name string
	Err  error
}

// checkedTarget is what the gateway recorded as live, and what the target says.
type checkedTarget struct {
	workflow.Target
	Found upgrade.Revision
	Err   error
}

// Same says whether the target has what was recorded.
func (t checkedTarget) Same() bool { return t.Err == nil && t.Found == t.Live }

// system remembers the newest state. One look is taken at a time.
type system struct {
	mu   sync.Mutex
	till time.Time
	last state
}

func (p *Pad) systemPage(w http.ResponseWriter, r *http.Request, u user) error {
	page := systemPage{Policy: p.Engine.Policy.Digest(), Engine: p.Engine.Policy.Engine()}
	err := p.Store.View(r.Context(), func(reader workflow.Reader) (err error) {
		if page.Size, err = reader.LogSize(); err == nil {
			_, page.Sealed, err = reader.Checkpoint()
		}
		return err
	})
	if err != nil {
		return err
	}
	if page.state, err = p.look(r.Context()); err != nil {
		return err
	}
	p.render(w, r, http.StatusOK, "system", frame{Title: "System", User: u, Place: "system", Page: page})
	return nil
}

// look tries everything, or gives what was found a moment ago.
func (p *Pad) look(ctx context.Context) (state, error) {
	p.tried.mu.Lock()
	defer p.tried.mu.Unlock()
	if now := p.Clock(); now.Before(p.tried.till) {
		return p.tried.last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	s := state{At: p.now(), Targets: make([]checkedTarget, len(p.Targets))}
	err := p.Store.View(ctx, func(reader workflow.Reader) (err error) {
		for i, name := range p.Targets {
			if s.Targets[i].Target, err = reader.Target(name); err != nil {
				return err
			}
			s.Targets[i].Name = name
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	p.try(ctx, &s)
	if s.Guard, err = p.Engine.Guard.Status(ctx); err != nil {
		s.Guard.Reason = "it does not answer"
	}
	if ctx.Err() == nil { // who went away made them fail
		p.tried.last, p.tried.till = s, p.Clock().Add(checkFor)
	}
	return s, nil
}

// try runs all checks side by side.
func (p *Pad) try(ctx context.Context, s *state) {
	checks := append([]Check{{"Policy", p.policyAnswers}}, p.Checks...)
	s.Checks = make([]checked, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { s.Checks[i] = checked{c.Name, c.Run(ctx)} })
	}
	for i := range s.Targets {
		t := &s.Targets[i]
		all.Go(func() { t.Found, t.Err = p.Engine.Deployer.Live(ctx, t.Name) })
	}
	all.Wait()
	for _, c := range s.Checks {
		if c.Err != nil {
			p.Logger.WarnContext(ctx, "a check for the system page failed", "check", c.Name, "err", c.Err)
		}
	}
	for _, t := range s.Targets {
		if t.Err != nil {
			p.Logger.WarnContext(ctx, "a target does not say what is live", "target", t.Name, "err", t.Err)
		}
	}
}

// policyAnswers asks the policy about an empty manifest: any verdict will do,
// but that it could not be asked.
func (p *Pad) policyAnswers(ctx context.Context) error {
	_, err := p.Engine.Policy.Evaluate(ctx, upgrade.PolicyInput{Case: upgrade.CaseQuorum, Now: p.now(), Tests: []upgrade.TestSummary{}, Spent: []upgrade.Cost{}})
	if err != nil {
		return errors.Join(errors.New("the policy could not be asked"), err)
	}
	return nil
}
