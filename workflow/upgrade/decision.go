package upgrade

import (
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// CanaryAction is what follows a failed canary.
type CanaryAction string

// The actions of PROTOCOL section 8.
const (
	CanaryRollback CanaryAction = "rollback"
	CanaryEscalate CanaryAction = "escalate"
)

// PolicyDecision is what SentinelNet said of an upgrade (PROTOCOL section 8).
type PolicyDecision struct {
	Allow           bool            `json:"allow"`
	Engine          string          `json:"engine"`
	EvaluatedAt     envelope.Time   `json:"evaluatedAt"`
	KernelID        envelope.ID     `json:"kernelId"`
	ManifestDigest  envelope.Digest `json:"manifestDigest"`
	OnCanaryFailure CanaryAction    `json:"onCanaryFailure"`
	PolicyDigest    envelope.Digest `json:"policyDigest"`
	UpgradeID       envelope.UUID   `json:"upgradeId"`
	Violations      []Violation     `json:"violations"`
}

// Violation is one rule that an upgrade breaks. Where the decision allows, it
// is a warning.
type Violation struct {
	Message string `json:"message"` // Text(1000): why, and what would satisfy the rule
	Rule    string `json:"rule"`    // Text(120)
}

// PolicyMaxAge is the oldest, in seconds, that a policy decision may be when
// an upgrade is decided.
const PolicyMaxAge = 300

func (d *PolicyDecision) check() error {
	for _, v := range d.Violations {
		if err := firstError(
			envelope.CheckText("policyDecision.violations.rule", v.Rule, 120),
			envelope.CheckText("policyDecision.violations.message", v.Message, 1000),
		); err != nil {
			return err
		}
	}
	if d.OnCanaryFailure != CanaryRollback && d.OnCanaryFailure != CanaryEscalate {
		return failure.New(failure.FieldInvalid, "policyDecision.onCanaryFailure is neither rollback nor escalate")
	}
	return envelope.CheckText("policyDecision.engine", d.Engine, 80)
}

// PolicyInput is what a policy is asked about. Its JSON form is the policy's
// `input` document.
type PolicyInput struct {
	Manifest Manifest      `json:"manifest"`
	Case     Case          `json:"case"`  // which case of PROTOCOL section 8 is decided
	Now      envelope.Time `json:"now"`   // the time of the decision
	Tests    []TestSummary `json:"tests"` // the results that the bundle carries, by name
	Spent    []Cost        `json:"spent"` // applied at this target in this calendar month (UTC), by currency
}

// TestSummary is the newest result of one test.
type TestSummary struct {
	Name   string `json:"name"`
	Result string `json:"result"` // PASSED, WARNED or FAILED
}

// PolicyVerdict is a policy's answer, before it is bound to an upgrade.
type PolicyVerdict struct {
	Allow           bool
	Violations      []Violation
	OnCanaryFailure CanaryAction
}

// Case is which case of PROTOCOL section 8 a signature is asked under.
type Case string

// The cases of PROTOCOL section 8.
const (
	CaseQuorum       Case = "quorum"
	CaseEmergency    Case = "emergency"
	CaseRatification Case = "ratification"
	CaseAutomatic    Case = "ratification-expired"
	CasePreapproved  Case = "preapproved"
)
