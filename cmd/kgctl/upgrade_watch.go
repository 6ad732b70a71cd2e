package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// ends are the states in which an upgrade stays.
var ends = []client.State{client.Completed, client.Rejected, client.Expired, client.RolledBack, client.ApplyFailed}

// stateNames are all states, in the order in which an upgrade comes to them.
func stateNames() string {
	on := []client.State{client.Draft, client.Paused, client.PendingApproval, client.QuorumReached, client.Applying, client.Applied, client.Validating,
		client.EmergencyApplied, client.RollbackScheduled}
	names := make([]string, 0, len(on)+len(ends))
	for _, s := range append(on, ends...) {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func (a *app) upgradeWatch() *cobra.Command {
	var until string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "watch ID [--until STATE] [--timeout TIME]", Short: "Follow an upgrade until it has ended", Args: oneUpgrade,
		Long: `Follow an upgrade's events until it has ended, or is in the state --until. Where it ends in another state
than that (or, without --until, other than completed or rolled_back) the exit code is 1, or 6 where it expired.`,
		Example: "  kgctl upgrade watch 0190a5e0-0000-7000-8000-000000000001 --until completed --timeout 1m",
		RunE: func(cmd *cobra.Command, args []string) error {
			if until != "" && !client.State(until).Valid() {
				return usagef("--until %.40q is no state; the states are %s", until, stateNames())
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			gateway, err := a.connect()
			if err != nil {
				return err
			}
			err = a.watch(ctx, gateway, envelope.UUID(args[0]), client.State(until))
			if err != nil && ctx.Err() != nil && cmd.Context().Err() == nil {
				err = fmt.Errorf("gave up after %s; kgctl upgrade show %s says what it waits for: %w", timeout, args[0], context.DeadlineExceeded)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "state to wait for")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time (exit code 10)")
	return cmd
}

// watch shows what has happened, then what happens, without a gap between them.
func (a *app) watch(ctx context.Context, gateway *client.Client, id envelope.UUID, until client.State) error {
	var next int64
	catchUp := func() error {
		events, err := gateway.UpgradeEvents(ctx, id)
		if err != nil {
			return unknownUpgrade(id, err)
		}
		for _, e := range events {
			if e.Seq < next {
				continue
			}
			if err := a.showEvent(e); err != nil {
				return err
			}
			next = e.Seq + 1
		}
		return nil
	}
	over := func() error {
		detail, err := gateway.Upgrade(ctx, id)
		if err != nil {
			return err
		}
		return ended(detail.Upgrade, until)
	}
	if err := catchUp(); err != nil {
		return err
	}
	verdict := over()
	if verdict == nil {
		verdict = gateway.Watch(ctx, next, func(e client.Event) error {
			if e.UpgradeId == nil || *e.UpgradeId != string(id) {
				return nil
			}
			if err := a.showEvent(e); err != nil {
				return err
			}
			next = e.Seq + 1
			return over()
		})
	}
	if errors.Is(verdict, client.ErrStop) {
		verdict = nil
	}
	if ctx.Err() == nil { // the state may be ahead of the stream
		verdict = errors.Join(verdict, catchUp())
	}
	return verdict
}

// ended is nil while there is more to come, ErrStop where all is well.
func ended(u client.Upgrade, until client.State) error {
	if u.State == until || until == "" && (u.State == client.Completed || u.State == client.RolledBack) {
		return client.ErrStop
	}
	if !slices.Contains(ends, u.State) {
		return nil
	}
	reason := ""
	if u.Reason != nil {
		reason = ": " + foreign(*u.Reason)
	}
	if u.State == client.Expired {
		return failure.New(failure.QuorumNotMet, "the upgrade expired%s", reason)
	}
	return fmt.Errorf("the upgrade is %s%s", u.State, reason)
}

// showEvent prints what the signed event says, not what stands beside it.
func (a *app) showEvent(e client.Event) error {
	event, env, err := auditlog.ParseLeaf(e.Leaf)
	if err != nil {
		return fmt.Errorf("event %d: %w", e.Seq, err)
	}
	if event.Seq != e.Seq || env.PayloadDigest().String() != e.Hash {
		return failure.New(failure.AuditChainBroken, "event %d is not what stands beside it", e.Seq)
	}
	if a.format == "json" {
		line, err := json.Marshal(event, json.Deterministic(true))
		if err == nil {
			_, err = fmt.Fprintln(a.out, string(line))
		}
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s  %6d  %-26s %-14s %s\n", local(event.Time), event.Seq, event.Type, event.Actor, event.UpgradeID)
	return err
}
