package main

import (
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

func (a *app) approveCommand() *cobra.Command {
	d := deciding{approving: true, question: "Approve exactly this?"}
	var notes string
	var preapprove bool
	cmd := &cobra.Command{
		Use: "approve ID --key URI", Short: "Approve an upgrade", Args: oneUpgrade,
		Long: `Approve an upgrade: its artifact is hashed here, its proposer's signature and the registry are
verified from the pinned root, all of it is shown in plain words, and then your key signs.`,
		Example: `  kgctl approve 0190a5e0-0000-7000-8000-000000000001 --key "$URI" --notes "Read it all"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args); err != nil {
				return err
			}
			if err := optionalText("notes", notes); err != nil {
				return err
			}
			d.record = approvalOf(notes, preapprove)
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&notes, "notes", "", "for everyone to read")
	cmd.Flags().BoolVar(&preapprove, "preapprove-rollback", false, "also approve the rollback, should the canary fail")
	return cmd
}

func (a *app) rejectCommand() *cobra.Command {
	d := deciding{question: "Reject it?"}
	var reason string
	cmd := &cobra.Command{
		Use: "reject ID --reason TEXT --key URI", Short: "Reject an upgrade", Args: oneUpgrade,
		Example: `  kgctl reject 0190a5e0-0000-7000-8000-000000000001 --reason "Not before the holidays" --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args, "reason"); err != nil {
				return err
			}
			if err := envelope.CheckText("reason", reason, 1000); err != nil {
				return usageError{err}
			}
			d.record = rejectionOf(reason)
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everyone to read")
	return cmd
}

func (a *app) requestTestsCommand() *cobra.Command {
	d := deciding{question: "Ask for these tests?"}
	var tests []string
	var notes string
	cmd := &cobra.Command{
		Use: "request-tests ID --tests NAME... --key URI", Short: "Ask for further tests before you decide", Args: oneUpgrade,
		Example: `  kgctl request-tests 0190a5e0-0000-7000-8000-000000000001 --tests soak --tests fuzz --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args, "tests"); err != nil {
				return err
			}
			if err := checkTests(tests); err != nil {
				return usageError{err}
			}
			if err := optionalText("notes", notes); err != nil {
				return err
			}
			d.record = testRequestOf(tests, notes)
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringSliceVar(&tests, "tests", nil, "names of tests; may be repeated")
	cmd.Flags().StringVar(&notes, "notes", "", "for everyone to read")
	return cmd
}
