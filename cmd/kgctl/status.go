package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// status is what kgctl status shows.
type status struct {
	Server          string            `json:"server"`
	Ready           bool              `json:"ready"`
	Checks          map[string]string `json:"checks"`
	KernelID        envelope.ID       `json:"kernelId"`
	Root            envelope.Digest   `json:"root"`
	RegistryVersion int64             `json:"registryVersion"`
	RegistryDigest  envelope.Digest   `json:"registryDigest"`
	LogSize         int64             `json:"logSize"` // of the newest checkpoint, which verifies
	Pending         int               `json:"pending"` // upgrades that wait for approvals; at most 200 are counted
}

var errNotReady = errors.New("the gateway is not ready")

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show whether the gateway works, and what it is checked against", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	gateway, err := a.connect()
	if err != nil {
		return err
	}
	ready, err := gateway.Ready(ctx)
	if err != nil {
		return err
	}
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	note, err := s.Checkpoint(ctx)
	if err != nil {
		return err
	}
	reg := s.registry()
	checkpoint, err := auditlog.OpenCheckpoint(note, reg.KernelID(), reg.Document().Kernel.Audit)
	if err != nil {
		return fmt.Errorf("the log's checkpoint: %w", err)
	}
	limit := int32(200)
	page, err := s.Upgrades(ctx, client.ListUpgradesParams{State: &[]client.State{client.PendingApproval}, Limit: &limit})
	if err != nil {
		return err
	}
	out := status{a.connection.server, ready.Ready, ready.Checks, reg.KernelID(), s.root, reg.Version(), reg.Digest(), checkpoint.Size, len(page.Upgrades)}
	rows := [][]string{
		{"gateway", out.Server}, {"kernel", string(out.KernelID)}, {"root", out.Root.String()},
		{"registry", fmt.Sprintf("version %d, %s", out.RegistryVersion, out.RegistryDigest)},
		{"log", fmt.Sprintf("%d events sealed", out.LogSize)}, {"pending", fmt.Sprintf("%d upgrades wait for approvals", out.Pending)},
	}
	for name, result := range ready.Checks {
		rows = append(rows, []string{foreign(name), foreign(result)})
	}
	slices.SortFunc(rows[6:], func(x, y []string) int { return slices.Compare(x, y) })
	if err := a.show(out, rows); err != nil || ready.Ready {
		return err
	}
	return fmt.Errorf("%w: %w", client.ErrUnavailable, errNotReady)
}
