package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

const (
	maxSigningBody = 16 << 10
	// deskEvery is how often an agent's stream looks for what another replica
	// took in.
	deskEvery = time.Second
)

// atDesk lets approvers in, and those who can be told that nobody takes requests here.
func (s *server) atDesk(c echo.Context) error {
	if err := allow(c, RoleApprover); err != nil {
		return err
	}
	if s.SigningRequests == nil {
		return refuse(http.StatusNotFound, CodeNotFound, "this gateway takes no signing requests; use kgctl approve, reject or request-tests")
	}
	return nil
}

func (s *server) ListSigningRequests(c echo.Context) error {
	if err := s.atDesk(c); err != nil {
		return err
	}
	if wantsStream(c.Request().Header.Get(echo.HeaderAccept)) {
		return s.streamSigning(c)
	}
	ctx, who := c.Request().Context(), holder(c)
	connected, err := s.desk.isPresent(ctx, who)
	if err != nil {
		return err
	}
	list, err := s.desk.list(ctx, who)
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return answer(c, SigningRequests{AgentConnected: connected, Requests: list}, err)
}

func (s *server) PostSigningRequest(c echo.Context) error {
	if err := s.atDesk(c); err != nil {
		return err
	}
	var wish NewSigningRequest
	if err := readStrict(c, &wish); err != nil {
		return err
	}
	if err := checkWish(wish); err != nil {
		return err
	}
	id, err := parseUUID(wish.UpgradeId)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if _, err := s.Engine.Upgrade(ctx, id); err != nil {
		return err
	}
	request, err := s.desk.ask(ctx, holder(c), wish)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, request)
}

func (s *server) ReportSigningRequest(c echo.Context, id Id) error {
	if err := s.atDesk(c); err != nil {
		return err
	}
	var report SigningReport
	if err := readStrict(c, &report); err != nil {
		return err
	}
	if !report.State.Valid() || report.State == SigningWaiting {
		return refuse(http.StatusBadRequest, CodeBadRequest, "%q is no state that can be reported", report.State)
	}
	if err := optionalText("detail", report.Detail, 400); err != nil {
		return err
	}
	request, err := s.desk.report(c.Request().Context(), holder(c), id, report)
	return answer(c, request, err)
}

func readStrict(c echo.Context, into any) error {
	body, err := readJSON(c, maxSigningBody)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into, json.RejectUnknownMembers(true)); err != nil {
		return refuse(http.StatusBadRequest, CodeBadRequest, "the body is not what docs/openapi.yaml says: %v", err)
	}
	return nil
}

// checkWish refuses what could not become a record by PROTOCOL section 6.
func checkWish(w NewSigningRequest) error {
	if !w.Decision.Valid() {
		return refuse(http.StatusBadRequest, CodeBadRequest, "%q is no decision: approve, reject or request-tests", w.Decision)
	}
	rejects, asks := w.Decision == SigningReject, w.Decision == SigningRequestTests
	for _, member := range []struct {
		name       string
		given, may bool
		must       bool
	}{
		{"reason", w.Reason != nil, rejects, rejects},
		{"notes", w.Notes != nil, !rejects, false},
		{"tests", w.Tests != nil, asks, asks},
		{"preapproveRollback", w.PreapproveRollback != nil, w.Decision == SigningApprove, false},
	} {
		if member.given && !member.may || member.must && !member.given {
			return refuse(http.StatusBadRequest, CodeBadRequest, "%s: not as the decision %s needs it", member.name, w.Decision)
		}
	}
	if w.Tests != nil {
		if n := len(*w.Tests); n < 1 || n > 16 {
			return refuse(http.StatusBadRequest, CodeBadRequest, "tests: 1 to 16 of them")
		}
		for i := range *w.Tests {
			if err := optionalText("tests", &(*w.Tests)[i], 80); err != nil {
				return err
			}
		}
	}
	if err := optionalText("reason", w.Reason, 1000); err != nil {
		return err
	}
	return optionalText("notes", w.Notes, 1000)
}

func optionalText(name string, text *string, limit int) error {
	if text == nil {
		return nil
	}
	if err := envelope.CheckText(name, *text, limit); err != nil {
		return refuse(http.StatusBadRequest, CodeBadRequest, "%s", failure.DetailOf(err))
	}
	return nil
}

// streamSigning is what an agent waits on. Only a token opens it: a page that
// streams with a session is no agent.
func (s *server) streamSigning(c echo.Context) error {
	if c.Request().Header.Get(echo.HeaderAuthorization) == "" {
		return refuse(http.StatusForbidden, CodeForbidden, "the agent's stream needs a token; a page reads the list")
	}
	leave, err := s.places.take(c)
	if err != nil {
		return err
	}
	defer leave()
	if s.desk.agents.Add(1) > maxStreams {
		s.desk.agents.Add(-1)
		return refuse(http.StatusServiceUnavailable, CodeUnavailable, "%d streams are open already", maxStreams)
	}
	defer s.desk.agents.Add(-1)
	ctx, who := c.Request().Context(), holder(c)
	if err := s.desk.present(ctx, who, true); err != nil {
		return err
	}
	defer func() { _ = s.desk.present(context.WithoutCancel(ctx), who, false) }() // else it ends by itself
	return s.desk.follow(ctx, who, s.startStream(c))
}

// follow sends each request once, when it is seen waiting or shown: after a
// broken connection an agent sees again what it had shown but not settled.
func (d *desk) follow(ctx context.Context, who envelope.ID, send func(string) error) error {
	look, present, beat := time.NewTicker(deskEvery), time.NewTicker(presentEvery), time.NewTicker(heartbeat)
	defer look.Stop()
	defer present.Stop()
	defer beat.Stop()
	sent := map[string]bool{}
	text := ": kernelgate\n\n"
	for {
		changed := d.changed()
		list, err := d.list(ctx, who)
		if err != nil {
			return nil // the response has begun: the agent connects again
		}
		fresh, err := unsent(list, sent)
		if err != nil {
			return err
		}
		if text += fresh; text != "" {
			if send(text) != nil {
				return nil // the agent has left
			}
		}
		text = ""
		select {
		case <-ctx.Done():
			return nil
		case <-draining(ctx):
			return nil
		case <-changed:
		case <-look.C:
		case <-present.C:
			if err := d.present(ctx, who, true); err != nil {
				return nil // as above
			}
		case <-beat.C:
			text = ": alive\n\n"
		}
	}
}

func unsent(list []SigningRequest, sent map[string]bool) (string, error) {
	var text strings.Builder
	for _, r := range list {
		if sent[r.Id] || !pending(r.State) {
			continue
		}
		data, err := json.Marshal(r)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "event: signing-request\ndata: %s\n\n", data)
		sent[r.Id] = true
	}
	return text.String(), nil
}
