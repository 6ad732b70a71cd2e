package main

import (
	"context"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) rollbackCommand() *cobra.Command {
	cmd := group("rollback", "Take an upgrade back", "A rollback is an upgrade like any other: it needs 3 of 5 approvals.")
	cmd.AddCommand(a.rollbackCreate())
	return cmd
}

func (a *app) rollbackCreate() *cobra.Command {
	var reason, key, downtime string
	cmd := &cobra.Command{
		Use: "create ID --reason TEXT --key URI", Short: "Propose to take back what is live", Args: oneUpgrade,
		Long: `Propose to take back the upgrade ID, which must be what is live at its target. What was taken
over and what comes back are read from its bundle, which is verified here.`,
		Example: `  kgctl rollback create 0190a5e0-0000-7000-8000-000000000001 --reason "Error rate doubled" --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "reason", "key"); err != nil {
				return err
			}
			if err := envelope.CheckText("reason", reason, 4000); err != nil {
				return usageError{err}
			}
			return a.createRollback(cmd.Context(), envelope.UUID(args[0]), reason, downtime, key)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everyone to read")
	cmd.Flags().StringVar(&downtime, "downtime", "", "downtime expected (default as the upgrade's)")
	cmd.Flags().StringVar(&key, "key", "", "URI of your key")
	return cmd
}

func (a *app) createRollback(ctx context.Context, id envelope.UUID, reason, downtime, key string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	v, _, err := a.bundle(ctx, s, id)
	if err != nil {
		return err
	}
	u := v.Manifest
	back, ok := u.BaseRevision.Digest()
	if !ok {
		return failure.New(failure.BaseRevisionMoved, "upgrade %s was the first at %s: there is nothing to go back to", id, u.Target.Name)
	}
	_, live, err := a.live(ctx, s, u.Target.Name)
	if err != nil {
		return err
	}
	if live == nil || live.Manifest.UpgradeID != id {
		return failure.New(failure.BaseRevisionMoved, "upgrade %s is not what is live at %s; to go further back, propose an ordinary upgrade", id, u.Target.Name)
	}
	m := &upgrade.Manifest{
		KernelID: u.KernelID, UpgradeID: envelope.UUID(uuid.NewString()), Type: upgrade.TypeRollback, Target: u.Target,
		BaseRevision: upgrade.RevisionOf(u.PatchHash), PatchHash: back, Rationale: "Take back upgrade " + string(id) + ": " + reason,
		Impact:        upgrade.Impact{Components: u.Impact.Components, Downtime: u.Impact.Downtime},
		Preconditions: upgrade.Preconditions{Approvals: upgrade.Quorum, Tests: []string{}},
		Rollback:      &upgrade.Rollback{Reason: reason, UpgradeID: id},
	}
	if envelope.CheckText("rationale", m.Rationale, 4000) != nil {
		m.Rationale = reason
	}
	if downtime != "" {
		m.Impact.Downtime = downtime
	}
	if err := upgrade.CheckRollbackOf(m, u); err != nil {
		return err
	}
	return a.proposeManifest(ctx, s, m, key, "")
}
