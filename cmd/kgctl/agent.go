package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

func (a *app) agentCommand() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "agent --key URI", Short: "Wait here for what you ask for in CommandPad, and sign it with your token", Args: noArgs,
		Long: `Wait on your machine for what you ask for on CommandPad's pages ("send to my machine"). For each request this
machine fetches the upgrade, hashes its artifact, verifies it from the pinned root, and shows it here, as approve does.
Only your yes here makes your key sign; a request carries nothing that is trusted, and cannot answer for you. Hence a
terminal is needed, and --yes is refused. End it with Ctrl-C.`,
		Example: `  kgctl agent --key "$URI"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "key"); err != nil {
				return err
			}
			if a.yes || a.noInput || !isTerminal(a.in) {
				return usagef("an agent asks you each time: it needs a terminal, and neither --yes nor --no-input")
			}
			return a.agent(cmd.Context(), key)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "URI of your key")
	return cmd
}

func (a *app) agent(ctx context.Context, key string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	who, err := a.holder(ctx, s, key)
	if err != nil {
		return err
	}
	g := &agent{app: a, gateway: s.Client, key: key, lines: listen(a.in), answered: map[string]bool{}}
	a.asks = g.ask
	connected := func() { a.say("Waiting for requests of %s at %s.", who, a.connection.server) }
	return s.WatchSigning(ctx, connected, func(r client.SigningRequest) error { return g.handle(ctx, r) })
}

// holder is whose key it is, found out before anything waits for it.
func (a *app) holder(ctx context.Context, s *session, uri string) (envelope.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	key, err := a.openKey(ctx, uri)
	if err != nil {
		return "", err
	}
	defer key.Close()
	return a.signatory(s, envelope.KeyID(key.Public().KeyID()), keyregistry.KindApprover)
}

// agent is what waits for requests.
type agent struct {
	*app
	gateway  *client.Client
	key      string
	lines    <-chan string
	request  client.SigningRequest // that is being answered
	answered map[string]bool       // by id: a request that comes again after a broken connection is not asked twice
}

// handle answers one request. Only the end of the agent itself is an error.
func (g *agent) handle(ctx context.Context, r client.SigningRequest) error {
	if g.answered[r.Id] {
		return nil
	}
	expires, err := envelope.ParseTime(r.ExpiresAt)
	if err != nil {
		return nil // not what the API says: it is no request
	}
	ctx, cancel := context.WithDeadlineCause(ctx, expires.Std(), errExpired)
	defer cancel()
	g.request = r
	g.say("\a\nYou ask this machine to %s upgrade %s:", foreign(strings.ReplaceAll(string(r.Decision), "-", " ")), foreign(r.UpgradeId))
	switch err = g.settleRequest(ctx, r); {
	case err == nil:
		g.report(ctx, client.SigningSigned, "")
	case context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), errExpired):
		return ctx.Err() // it waits for the next agent
	case errors.Is(err, errCancelled):
		g.say("%v", err)
		g.report(ctx, client.SigningDeclined, "")
	case errors.Is(err, errNoTerminal):
		return err
	case errors.Is(err, errGone), errors.Is(err, errExpired):
		g.say("%v", err)
	default:
		g.say("kgctl: %v", err)
		g.report(ctx, client.SigningFailed, err.Error())
	}
	g.answered[r.Id] = true
	return nil
}

var (
	errNoTerminal = errors.New("the terminal has closed: nothing was signed")
	errExpired    = errors.New("the request has expired: nothing was signed")
	errGone       = errors.New("the request was answered elsewhere or withdrawn: nothing was signed")
)

// settleRequest does what approve, reject or request-tests would.
func (g *agent) settleRequest(ctx context.Context, r client.SigningRequest) error {
	d, err := decidingOf(r)
	if err != nil {
		return err
	}
	d.key = g.key
	if err := g.stillWanted(ctx); err != nil {
		return err
	}
	return g.settle(ctx, d)
}

// decidingOf is a request as a decision; it comes over the network, so all of
// it is checked.
func decidingOf(r client.SigningRequest) (d deciding, err error) {
	if err := d.id.UnmarshalText([]byte(r.UpgradeId)); err != nil {
		return d, err
	}
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	notes, reason := text(r.Notes), text(r.Reason)
	if err := optionalText("notes", notes); err != nil {
		return d, err
	}
	switch r.Decision {
	case client.SigningApprove:
		preapprove := r.PreapproveRollback != nil && *r.PreapproveRollback
		d.question, d.approving, d.record = "Approve exactly this?", true, approvalOf(notes, preapprove)
		if preapprove {
			d.question = "Approve exactly this, and its rollback should the canary fail?"
		}
	case client.SigningReject:
		if err := envelope.CheckText("reason", reason, 1000); err != nil {
			return d, err
		}
		d.question, d.record = "Reject it?", rejectionOf(reason)
		d.remark = reason
	case client.SigningRequestTests:
		var tests []string
		if r.Tests != nil {
			tests = *r.Tests
		}
		if err := checkTests(tests); err != nil {
			return d, err
		}
		d.question, d.record = "Ask for these tests: "+foreign(strings.Join(tests, ", "))+"?", testRequestOf(tests, notes)
	default:
		return d, fmt.Errorf("this kgctl knows no decision %.40q", r.Decision)
	}
	if d.remark == "" {
		d.remark = notes
	}
	return d, nil
}

// ask takes a yes that is typed after the question, and only then: what stood
// on the terminal before answers nothing.
func (g *agent) ask(ctx context.Context, question string) error {
	for drained := false; !drained; {
		select {
		case _, open := <-g.lines:
			if !open {
				return errNoTerminal
			}
		default:
			drained = true
		}
	}
	g.say("%s [y/N]", question)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case line, open := <-g.lines:
		if !open {
			return errNoTerminal
		}
		if !isYes(line) {
			return errCancelled
		}
	}
	return g.stillWanted(ctx)
}

// stillWanted tells the gateway that the request is shown here, and learns
// whether it has ended meanwhile.
func (g *agent) stillWanted(ctx context.Context) error {
	_, err := g.gateway.ReportSigning(ctx, g.request.Id, client.SigningShown, "")
	var refused *client.Error
	if errors.As(err, &refused) && (refused.Status == http.StatusConflict || refused.Status == http.StatusNotFound) {
		return errGone
	}
	return err
}

// report is for the page; the record itself has been submitted or has not.
func (g *agent) report(ctx context.Context, state client.SigningState, detail string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if detail = foreign(detail); len([]rune(detail)) > 400 {
		detail = string([]rune(detail)[:399]) + "…"
	}
	if _, err := g.gateway.ReportSigning(ctx, g.request.Id, state, detail); err != nil {
		g.say("The page could not be told: %v", err)
	}
}
