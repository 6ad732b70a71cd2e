package guard

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// requirePolicy refuses a registry document that pins a policy, where the guard
// has none of its own to evaluate.
func (g *Guard) requirePolicy(reg *keyregistry.Registry) error {
	if pinned := reg.Rules().PolicyDigest; pinned != nil && g.config.Policy == nil {
		return failure.New(failure.PolicyDenied, "registry version %d pins policy %s, and the guard has no policy of its own; give it that one (policy.dir, not policy.url)", reg.Version(), pinned)
	}
	return nil
}

// CheckPolicy refuses a guard without a policy of its own, where the registry
// pins one. Another policy than the pinned one passes: it signs no upgrade, but
// a guard must run to accept the document that pins it.
func (g *Guard) CheckPolicy() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mem == nil {
		return nil
	}
	return g.requirePolicy(g.mem.regs.Last())
}

// askPolicy evaluates the policy that the registry pins, where it pins one. Its
// input is made of the bundle and of e, the sealed event that announces it.
func (g *Guard) askPolicy(ctx context.Context, v *upgrade.Verdict, b *upgrade.QuorumBundle, e auditlog.Event) error {
	pinned := v.Registry.Rules().PolicyDigest
	if pinned == nil || v.Policy == nil {
		return nil
	}
	p := g.config.Policy
	if p == nil || p.Digest() != *pinned {
		return failure.New(failure.PolicyDenied, "the guard does not have policy %s, which the registry pins; give it that one", pinned)
	}
	spent, err := g.mem.spent(v, e)
	if err != nil {
		return err
	}
	input := upgrade.PolicyInput{Manifest: *v.Manifest, Case: v.Case, Now: v.DecidedAt, Tests: []upgrade.TestSummary{}, Spent: spent}
	for _, env := range b.TestResults {
		r, err := upgrade.VerifyTestResult(v.Registry, env, v.Manifest.PatchHash, v.DecidedAt)
		if err != nil {
			return err
		}
		input.Tests = append(input.Tests, upgrade.TestSummary{Name: r.Name, Result: r.Result})
	}
	slices.SortFunc(input.Tests, func(a, b upgrade.TestSummary) int { return strings.Compare(a.Name, b.Name) })
	verdict, err := p.Evaluate(ctx, input)
	if err != nil {
		return failure.Reclass(failure.PolicyDenied, err)
	}
	if !verdict.Allow {
		return failure.New(failure.PolicyDenied, "the policy, asked by the guard, denies this upgrade%s", firstRule(verdict.Violations))
	}
	return nil
}

func firstRule(violations []upgrade.Violation) string {
	if len(violations) == 0 {
		return ""
	}
	return " by rule " + violations[0].Rule
}

// spent is the policy's budget input, by currency: what the gateway says in the
// sealed event, and never less than what the guard itself signed for the target
// in the decision's month and was not told to have failed.
func (m *memory) spent(v *upgrade.Verdict, e auditlog.Event) ([]upgrade.Cost, error) {
	sums, err := gatewaySpent(e)
	if err != nil {
		return nil, err
	}
	own := map[string]int64{}
	month := v.DecidedAt.String()[:len("2006-01")]
	for _, u := range m.upgrades {
		if u.Cost != nil && u.UpgradeID != v.Manifest.UpgradeID && u.Target == v.Manifest.Target.Name && u.Outcome != auditlog.UpgradeApplyFailed && u.DecidedAt.String()[:len(month)] == month {
			// Both are at most 2^53, and the sum is kept there, so it cannot wrap.
			own[u.Cost.Currency] = min(own[u.Cost.Currency]+u.Cost.MinorUnits, envelope.MaxInt)
		}
	}
	for currency, n := range own {
		sums[currency] = max(sums[currency], n)
	}
	spent := []upgrade.Cost{}
	for currency, n := range sums {
		spent = append(spent, upgrade.Cost{Currency: currency, MinorUnits: n})
	}
	slices.SortFunc(spent, func(a, b upgrade.Cost) int { return strings.Compare(a.Currency, b.Currency) })
	return spent, nil
}

func gatewaySpent(e auditlog.Event) (map[string]int64, error) {
	sums := map[string]int64{}
	list, _ := e.Data[auditlog.DataSpent].([]string)
	for _, text := range list {
		currency, amount, ok := strings.Cut(text, "=")
		n, err := strconv.ParseInt(amount, 10, 64)
		if _, twice := sums[currency]; !ok || err != nil || n < 0 || n > envelope.MaxInt || len(currency) != 3 || twice {
			return nil, failure.New(failure.PolicyDenied, "event %d: %s is not a list of sums by currency, such as EUR=120000", e.Seq, auditlog.DataSpent)
		}
		sums[currency] = n
	}
	return sums, nil
}
