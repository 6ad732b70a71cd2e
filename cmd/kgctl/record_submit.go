package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

func (a *app) recordCommand() *cobra.Command {
	cmd := group("record", "Carry records that were signed elsewhere", "A record signed on a machine without a network is brought to the gateway by any other.")
	cmd.AddCommand(&cobra.Command{
		Use: "submit FILE", Short: "Submit a record that kgctl sign, or another tool, has signed", Args: oneFile,
		Example: "  kgctl record submit decision.json",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.carry(cmd.Context(), args[0]) },
	})
	return cmd
}

func (a *app) carry(ctx context.Context, path string) error {
	data, err := readFile(path, envelope.MaxWire)
	if err != nil {
		return err
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return fmt.Errorf("record %s: %w", path, err)
	}
	gateway, err := a.connect()
	if err != nil {
		return err
	}
	return a.submit(ctx, gateway, env)
}
