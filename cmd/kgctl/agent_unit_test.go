package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kernelgate/kernelgate/workflow/client"
)

// A request comes over the network from a page: nothing of it is taken on trust.
func TestRequestsAreChecked(t *testing.T) {
	const id = "0190a5e0-0000-7000-8000-000000000001"
	text := func(s string) *string { return &s }
	many := make([]string, 17)
	for i := range many {
		many[i] = "t"
	}
	for name, r := range map[string]client.SigningRequest{
		"no upgrade":       {UpgradeId: "../" + id, Decision: client.SigningApprove},
		"no decision":      {UpgradeId: id},
		"another decision": {UpgradeId: id, Decision: "emergency-trigger"},
		"escapes in notes": {UpgradeId: id, Decision: client.SigningApprove, Notes: text("\x1b[2J")},
		"no reason":        {UpgradeId: id, Decision: client.SigningReject},
		"reason backwards": {UpgradeId: id, Decision: client.SigningReject, Reason: text("a\u202eb")},
		"long reason":      {UpgradeId: id, Decision: client.SigningReject, Reason: text(strings.Repeat("a", 1001))},
		"no tests":         {UpgradeId: id, Decision: client.SigningRequestTests},
		"many tests":       {UpgradeId: id, Decision: client.SigningRequestTests, Tests: &many},
		"escapes in tests": {UpgradeId: id, Decision: client.SigningRequestTests, Tests: &[]string{"\x07"}},
	} {
		if d, err := decidingOf(r); err == nil {
			t.Errorf("%s: taken as %+v", name, d)
		}
	}
	yes := true
	d, err := decidingOf(client.SigningRequest{UpgradeId: id, Decision: client.SigningApprove, Notes: text("read"), PreapproveRollback: &yes})
	must(t, err)
	if !d.approving || d.emergency || d.remark != "read" || !strings.Contains(d.question, "rollback") {
		t.Errorf("an approval became %+v", d)
	}
}

// What was typed before the question is no answer; nor is silence until the
// request expires, nor the end of the terminal.
func TestAskTakesOnlyALaterYes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := make(chan string, 8)
		g := &agent{app: &app{messages: discard(t)}, lines: lines}
		lines <- "y"
		lines <- "yes"
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errExpired)
		defer cancel()
		if err := g.ask(ctx, "Approve?"); !errors.Is(err, errExpired) {
			t.Errorf("typed ahead: %v", err)
		}
		for _, answer := range []string{"n", "", "yess", "Y es"} {
			go func() {
				time.Sleep(time.Second)
				lines <- answer
			}()
			if err := g.ask(t.Context(), "Approve?"); !errors.Is(err, errCancelled) {
				t.Errorf("%q: %v", answer, err)
			}
		}
		go func() {
			time.Sleep(time.Second)
			close(lines)
		}()
		if err := g.ask(t.Context(), "Approve?"); !errors.Is(err, errNoTerminal) {
			t.Errorf("closed: %v", err)
		}
		if err := g.ask(t.Context(), "Approve?"); !errors.Is(err, errNoTerminal) {
			t.Errorf("closed before: %v", err)
		}
	})
}

func discard(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}
