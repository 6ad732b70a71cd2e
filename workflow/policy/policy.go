// Package policy is SentinelNet: it asks a policy in Rego whether an upgrade
// breaks a rule. The policy runs inside the gateway (Embedded), or in an OPA
// server that others run (Remote). What a policy is asked and answers is in
// docs/policy.md.
//
// An answer that is not exactly of that form is an error, and an error denies.
package policy

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// maxViolations is the most that one verdict may list; they stand in the
// quorum bundle for ever.
const maxViolations = 100

// answer is the policy's document. Pointers tell what is missing.
type answer struct {
	Allow           *bool                 `json:"allow"`
	Violations      *[]upgrade.Violation  `json:"violations"`
	OnCanaryFailure *upgrade.CanaryAction `json:"onCanaryFailure"`
}

// decode is strict: three members, no other, each of its form.
func decode(data []byte) (upgrade.PolicyVerdict, error) {
	var a answer
	if err := json.Unmarshal(data, &a, json.RejectUnknownMembers(true)); err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: its answer is not of the form in docs/policy.md: %w", err)
	}
	if a.Allow == nil || a.Violations == nil || a.OnCanaryFailure == nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: its answer lacks one of allow, violations, onCanaryFailure")
	}
	v := upgrade.PolicyVerdict{Allow: *a.Allow, Violations: *a.Violations, OnCanaryFailure: *a.OnCanaryFailure}
	return v, check(v)
}

func check(v upgrade.PolicyVerdict) error {
	if n := len(v.Violations); n > maxViolations {
		return fmt.Errorf("policy: its answer lists %d violations, where at most %d are allowed", n, maxViolations)
	}
	for _, violation := range v.Violations {
		if err := envelope.CheckText("violations.rule", violation.Rule, 120); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		if err := envelope.CheckText("violations.message", violation.Message, 1000); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	if v.OnCanaryFailure != upgrade.CanaryRollback && v.OnCanaryFailure != upgrade.CanaryEscalate {
		return fmt.Errorf("policy: its onCanaryFailure is %.40q, neither rollback nor escalate", v.OnCanaryFailure)
	}
	return nil
}
