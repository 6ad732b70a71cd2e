package main

import (
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) emergencyCommand() *cobra.Command {
	cmd := group("emergency", "Apply before the quorum, and account for it", `An emergency is applied at once, on the signature of a superadmin or a security engineer alone. Everybody is told;
unless three of five ratify it in time it is taken back by itself.`)
	cmd.AddCommand(a.emergencyTrigger(), a.emergencyReport())
	return cmd
}

func (a *app) emergencyTrigger() *cobra.Command {
	d := deciding{approving: true, emergency: true, question: "Apply this NOW, without a quorum?"}
	var reason string
	cmd := &cobra.Command{
		Use: "trigger ID --reason TEXT --key URI", Short: "Apply an upgrade at once, without a quorum", Args: oneUpgrade,
		Long: `Apply an upgrade at once, without a quorum. What is waived is the quorum and the tests; the artifact's hash,
the policy and what is live are checked as ever. Unless three of five ratify it within the registry's window, it is
taken back by itself, and no further emergency is taken at its target until then.`,
		Example: `  kgctl emergency trigger 0190a5e0-0000-7000-8000-000000000001 --reason "The hole is being used" --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args, "reason"); err != nil {
				return err
			}
			if err := envelope.CheckText("reason", reason, 1000); err != nil {
				return usageError{err}
			}
			a.say("EMERGENCY. Reason: %s", indented(reason))
			d.record = func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
				m := r.manifest
				return envelope.TypeEmergencyTrigger, &upgrade.EmergencyTrigger{KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest, PatchHash: m.PatchHash,
					Reason: reason, RegistryDigest: s.registry().Digest(), TriggeredAt: now, TriggeredBy: who, UpgradeID: m.UpgradeID}
			}
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why it cannot wait, for everyone to read")
	return cmd
}
