package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := group("policy", "Ask what SentinelNet says", "The policy decides beside the quorum: while it denies, approvals are refused.")
	cmd.AddCommand(&cobra.Command{
		Use: "explain ID", Short: "Say which rules an upgrade breaks, why, and what would satisfy them", Args: oneUpgrade,
		Long: "Say which rules an upgrade breaks, why, and what would satisfy them. The exit code is 5 where the policy denies.",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			r, err := a.look(cmd.Context(), s, envelope.UUID(args[0]))
			if err != nil {
				return err
			}
			return a.explain(s, r)
		},
	})
	return cmd
}

func (a *app) explain(s *session, r *reading) error {
	d := r.policy
	if d == nil {
		return fmt.Errorf("the policy has not been asked about upgrade %s yet", r.manifest.UpgradeID)
	}
	rows := [][]string{{"RULE", "WHY, AND WHAT WOULD SATISFY IT"}}
	for _, v := range d.Violations {
		rows = append(rows, []string{foreign(v.Rule), foreign(v.Message)})
	}
	verdict := "allows"
	if !d.Allow {
		verdict = "denies"
	}
	a.say("The policy %s upgrade %s, as of %s.", verdict, r.manifest.UpgradeID, local(d.EvaluatedAt))
	a.say("Asked: %s, policy %s; when a canary fails: %s.", foreign(d.Engine), d.PolicyDigest, d.OnCanaryFailure)
	if pinned := s.registry().Rules().PolicyDigest; pinned != nil && *pinned != d.PolicyDigest {
		a.say("WARNING: the registry's quorum chose another policy, %s; the Kernel will not sign under this one.", *pinned)
	}
	if len(d.Violations) == 0 {
		rows = nil
	}
	if err := a.show(d, rows); err != nil || d.Allow {
		return err
	}
	return denied(d)
}

func denied(d *upgrade.PolicyDecision) error {
	return failure.New(failure.PolicyDenied, "%d rules are broken", len(d.Violations))
}
