package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/client"
)

func (a *app) auditTail() *cobra.Command {
	var from int64
	var count int
	var follow bool
	cmd := &cobra.Command{
		Use: "tail [--from SEQ | --lines N] [--follow]", Short: "Show the newest events of the log, and with --follow what happens next", Args: noArgs,
		Example: "  kgctl audit tail --follow",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from < 0 || from > envelope.MaxInt || count < 0 {
				return usagef("--from and --lines are not negative")
			}
			gateway, err := a.connect()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("from") {
				note, err := gateway.Checkpoint(cmd.Context())
				if err != nil {
					return err
				}
				sealed, err := auditlog.ReadCheckpoint(note)
				if err != nil {
					return err
				}
				from = max(0, sealed.Size-int64(count))
			}
			return a.tail(cmd.Context(), gateway, from, follow)
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "first seq")
	cmd.Flags().IntVarP(&count, "lines", "n", 20, "how many of the newest sealed events to begin with")
	cmd.Flags().BoolVarP(&follow, "follow", "F", false, "go on with what happens")
	return cmd
}

func (a *app) tail(ctx context.Context, gateway *client.Client, from int64, follow bool) error {
	for {
		page, err := gateway.Events(ctx, from, auditPage)
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			if err := a.showEvent(e); err != nil {
				return err
			}
			from = e.Seq + 1
		}
		if page.Next == nil {
			break
		}
	}
	if !follow {
		return nil
	}
	err := gateway.Watch(ctx, from, a.showEvent)
	if errors.Is(err, context.Canceled) {
		return nil // ctrl-C is how one stops following
	}
	return err
}
