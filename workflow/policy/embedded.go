package policy

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/version"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

//go:embed sentinelnet
var defaults embed.FS

const (
	packagePath = "data.kernelgate.sentinelnet"
	// evaluationLimit bounds one evaluation; the default policy takes below a millisecond.
	evaluationLimit = 5 * time.Second
)

// Embedded is a policy that runs inside the gateway. The same input always has
// the same verdict: a policy that asks the clock, the network, the environment
// or a source of chance does not load. It is safe for concurrent use.
type Embedded struct {
	query  rego.PreparedEvalQuery
	digest envelope.Digest
}

var _ workflow.Policy = (*Embedded)(nil)

// Default is the policy that kernelgate brings along; its settings block nothing.
func Default() (*Embedded, error) {
	sub, err := fs.Sub(defaults, "sentinelnet")
	if err != nil {
		return nil, err
	}
	return Load(sub)
}

// LoadDir loads the policy in a directory.
func LoadDir(dir string) (*Embedded, error) {
	p, err := Load(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return p, nil
}

// Load loads and compiles the policy in fsys: *.rego (Rego v1) and data.json,
// at most 200 files and 1 MiB. Its package kernelgate.sentinelnet must have the
// rules allow, violations and onCanaryFailure. A running policy does not follow
// changes of its files.
func Load(fsys fs.FS) (*Embedded, error) {
	found, err := readFiles(fsys)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	query, err := prepare(found)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return &Embedded{query, found.digest()}, nil
}

func prepare(found files) (rego.PreparedEvalQuery, error) {
	data := map[string]any{}
	options := []func(*rego.Rego){
		rego.Query(packagePath),
		rego.Capabilities(capabilities()),
		rego.Strict(true),
		// Otherwise a rule that fails counts as one that does not apply.
		rego.StrictBuiltinErrors(true),
	}
	missing := []string{"allow", "violations", "onCanaryFailure"}
	for name, content := range found {
		if name == dataFile {
			if err := json.Unmarshal(content, &data); err != nil {
				return rego.PreparedEvalQuery{}, fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		module, err := ast.ParseModuleWithOpts(name, string(content), ast.ParserOptions{Capabilities: capabilities(), RegoVersion: ast.RegoV1})
		if err != nil {
			return rego.PreparedEvalQuery{}, err
		}
		options = append(options, rego.ParsedModule(module))
		if module.Package.Path.String() == packagePath {
			for _, rule := range module.Rules {
				missing = slices.DeleteFunc(missing, func(n string) bool { return n == rule.Head.Name.String() })
			}
		}
	}
	if len(missing) > 0 {
		return rego.PreparedEvalQuery{}, fmt.Errorf("its package kernelgate.sentinelnet lacks the rules %q", missing)
	}
	options = append(options, rego.Store(inmem.NewFromObject(data)))
	ctx, cancel := context.WithTimeout(context.Background(), evaluationLimit)
	defer cancel()
	return rego.New(options...).PrepareForEval(ctx)
}

// capabilities are OPA's built-in functions without those whose answer is not
// in their arguments alone.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		// Two that OPA does not mark so look at the clock and at the system's roots.
		return b.Nondeterministic || strings.HasPrefix(b.Name, "crypto.x509.parse_and_verify_certificates")
	})
	c.AllowNet = []string{}
	return c
}

// Engine is "opa/VERSION sentinelnet".
func (p *Embedded) Engine() string { return "opa/" + version.Version + " sentinelnet" }

// Digest is SHA-256 over the policy's files, as docs/policy.md defines it.
func (p *Embedded) Digest() envelope.Digest { return p.digest }

// Pure implements workflow.Pure: capabilities leaves no other functions.
func (p *Embedded) Pure() {}

// Evaluate asks the policy. It ends after 5 seconds at the latest.
func (p *Embedded) Evaluate(ctx context.Context, input upgrade.PolicyInput) (upgrade.PolicyVerdict, error) {
	ctx, cancel := context.WithTimeout(ctx, evaluationLimit)
	defer cancel()
	data, err := json.Marshal(input)
	if err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: %w", err)
	}
	value, err := ast.ValueFromReader(bytes.NewReader(data))
	if err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: %w", err)
	}
	results, err := p.query.Eval(ctx, rego.EvalParsedInput(value))
	if err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: %w", err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: it has no answer")
	}
	document, err := json.Marshal(results[0].Expressions[0].Value, json.Deterministic(true))
	if err != nil {
		return upgrade.PolicyVerdict{}, fmt.Errorf("policy: its answer is not of the form in docs/policy.md: %w", err)
	}
	return decode(document)
}
