package commandpad_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// part is a policy, a guard and a target, which all answer alike.
type part struct {
	allows
	silent
	workflow.Deployer
	live upgrade.Revision
	err  error
}

func (p part) Evaluate(context.Context, upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	return upgrade.PolicyVerdict{}, p.err
}

func (p part) Status(context.Context) (workflow.GuardStatus, error) {
	return workflow.GuardStatus{Ready: p.err == nil}, p.err
}

func (p part) Live(context.Context, envelope.ID) (upgrade.Revision, error) { return p.live, p.err }

// The system page is green where something was tried and worked, and nowhere else.
func TestSystemIsGreenOnlyWhereItWasTried(t *testing.T) {
	for name, c := range map[string]struct {
		part
		want, never []string
	}{
		"all works":       {part{live: upgrade.None}, []string{">works<", ">ready to sign<", ">the same<"}, []string{"chip bad", "note bad"}},
		"all is away":     {part{err: errors.New("the inside")}, []string{">fails<", ">does not sign<", ">does not answer<"}, []string{"chip good", "the inside"}},
		"another is live": {part{live: upgrade.RevisionOf(envelope.DigestOf(nil))}, []string{">something else<"}, []string{">the same<"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t, 0)
			var log bytes.Buffer
			s.pad.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s.pad.Engine.Policy, s.pad.Engine.Guard, s.pad.Engine.Deployer = c.part, c.part, c.part
			s.pad.Checks = []commandpad.Check{{Name: "Audit bus", Run: func(context.Context) error { return c.err }}}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/system", nil)
			r.Header.Set("Cookie", s.cookie)
			w := httptest.NewRecorder()
			s.pad.ServeHTTP(w, r)
			page := w.Body.String()
			for _, text := range c.want {
				if !strings.Contains(page, text) {
					t.Errorf("the page has no %q", text)
				}
			}
			for _, text := range c.never {
				if strings.Contains(page, text) {
					t.Errorf("the page has %q", text)
				}
			}
			if failed := strings.Count(log.String(), "the inside"); c.err != nil && failed != 3 {
				t.Errorf("the log names %d failures of 3:\n%s", failed, log.String())
			}
		})
	}
}
