package policy_test

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// bundle is the default policy with other settings.
func bundle(t testing.TB, settings string) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	root := os.DirFS("sentinelnet")
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if settings != "" {
		files["data.json"] = &fstest.MapFile{Data: []byte(settings)}
	}
	return files
}

// withSettings has the default settings but for the members given.
func withSettings(t testing.TB, members string) *policy.Embedded {
	t.Helper()
	settings := map[string]any{"blocked": []any{}, "budgets": []any{}, "tests": []any{}, "onCanaryFailure": map[string]any{"default": "rollback"}}
	var changes map[string]any
	if err := json.Unmarshal([]byte(members), &changes); err != nil {
		t.Fatal(err)
	}
	maps.Copy(settings, changes)
	data, err := json.Marshal(map[string]any{"sentinelnet": settings})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(bundle(t, string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// input is an ordinary upgrade on Tuesday, 24 November 2026, at noon.
func input(t testing.TB, changes ...func(*upgrade.PolicyInput)) upgrade.PolicyInput {
	t.Helper()
	in := upgrade.PolicyInput{
		Manifest: upgrade.Manifest{
			BaseRevision:  upgrade.RevisionOf(envelope.DigestOf([]byte("base"))),
			Impact:        upgrade.Impact{Components: []string{"signer", "web"}, Cost: &upgrade.Cost{Currency: "EUR", MinorUnits: 500}, Downtime: "none"},
			KernelID:      "main",
			PatchHash:     envelope.DigestOf([]byte("patch")),
			Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{"unit"}},
			ProposedBy:    "tech-lead",
			Rationale:     "because",
			Target:        upgrade.Target{Name: "web", Repository: "example/web", Path: "src/app/main.go", Commit: strings.Repeat("a", 40)},
			Type:          upgrade.TypeCode,
			UpgradeID:     "0b6bc2a4-0a3d-4d0a-9d5a-3f5f6f3c2a10",
		},
		Case:  upgrade.CaseQuorum,
		Tests: []upgrade.TestSummary{{Name: "unit", Result: "PASSED"}},
		Spent: []upgrade.Cost{{Currency: "EUR", MinorUnits: 9000}, {Currency: "USD", MinorUnits: 1}},
	}
	at("2026-11-24T12:00:00Z")(&in)
	for _, change := range changes {
		change(&in)
	}
	return in
}

func at(text string) func(*upgrade.PolicyInput) {
	now, err := envelope.ParseTime(text)
	if err != nil {
		panic(err)
	}
	return func(in *upgrade.PolicyInput) { in.Now = now; in.Manifest.Timestamp = now }
}

func path(path string) func(*upgrade.PolicyInput) {
	return func(in *upgrade.PolicyInput) { in.Manifest.Target.Path = path }
}

func rules(v upgrade.PolicyVerdict) (names []string) {
	for _, violation := range v.Violations {
		names = append(names, violation.Rule)
	}
	return names
}

func evaluate(t testing.TB, p *policy.Embedded, in upgrade.PolicyInput) upgrade.PolicyVerdict {
	t.Helper()
	v, err := p.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDefaultBlocksNothing(t *testing.T) {
	p, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	v := evaluate(t, p, input(t))
	if !v.Allow || len(v.Violations) != 0 || v.OnCanaryFailure != upgrade.CanaryRollback {
		t.Errorf("verdict is %+v", v)
	}
	v = evaluate(t, p, input(t, func(in *upgrade.PolicyInput) {
		in.Manifest.BaseRevision = upgrade.None
		in.Manifest.Target = upgrade.Target{Name: "web", ManifestID: "m"}
		in.Manifest.Impact.Cost, in.Spent, in.Tests = nil, nil, nil
	}))
	if !v.Allow || v.OnCanaryFailure != upgrade.CanaryEscalate {
		t.Errorf("verdict on a first upgrade is %+v", v)
	}
	if engine := p.Engine(); !strings.HasPrefix(engine, "opa/1.") || !strings.HasSuffix(engine, " sentinelnet") || envelope.CheckText("engine", engine, 80) != nil {
		t.Errorf("engine is %q", engine)
	}
}

func TestBlocked(t *testing.T) {
	const why = `"name": "rule", "why": "ask the board"`
	for name, c := range map[string]struct {
		entry string
		in    upgrade.PolicyInput
		want  bool // blocked
	}{
		"everything":      {why, input(t), true},
		"type":            {why + `, "types": ["policy", "code"]`, input(t), true},
		"other type":      {why + `, "types": ["policy"]`, input(t), false},
		"target":          {why + `, "targets": ["db", "w*"]`, input(t), true},
		"other target":    {why + `, "targets": ["db"]`, input(t), false},
		"case":            {why + `, "cases": ["quorum"]`, input(t), true},
		"other case":      {why + `, "cases": ["emergency"]`, input(t), false},
		"path":            {why + `, "paths": ["src/**"]`, input(t), true},
		"path, one level": {why + `, "paths": ["src/*"]`, input(t), false},
		"path of a manifest": {why + `, "paths": ["policy-*"]`, input(t, func(in *upgrade.PolicyInput) {
			in.Manifest.Target = upgrade.Target{Name: "web", ManifestID: "policy-7"}
		}), true},
		"component":                {why + `, "components": ["sign*"]`, input(t), true},
		"other component":          {why + `, "components": ["sign"]`, input(t), false},
		"all selectors":            {why + `, "types": ["code"], "targets": ["web"], "paths": ["src/**"], "components": ["web"], "windows": [{"weekdays": ["tue"]}]`, input(t), true},
		"all selectors but one":    {why + `, "types": ["code"], "targets": ["web"], "paths": ["src/**"], "components": ["db"], "windows": [{"weekdays": ["tue"]}]`, input(t), false},
		"weekday":                  {why + `, "windows": [{"weekdays": ["mon", "tue"]}]`, input(t), true},
		"other weekday":            {why + `, "windows": [{"weekdays": ["wed"]}]`, input(t), false},
		"hours":                    {why + `, "windows": [{"from": "12:00", "to": "12:01"}]`, input(t), true},
		"hours, at the end":        {why + `, "windows": [{"from": "11:00", "to": "12:00"}]`, input(t), false},
		"hours to midnight":        {why + `, "windows": [{"from": "12:00", "to": "24:00"}]`, input(t, at("2026-11-24T23:59:59Z")), true},
		"overnight, before":        {why + `, "windows": [{"weekdays": ["tue"], "from": "22:00", "to": "06:00"}]`, input(t, at("2026-11-24T23:00:00Z")), true},
		"overnight, after":         {why + `, "windows": [{"weekdays": ["tue"], "from": "22:00", "to": "06:00"}]`, input(t, at("2026-11-25T05:59:00Z")), true},
		"overnight, over":          {why + `, "windows": [{"weekdays": ["tue"], "from": "22:00", "to": "06:00"}]`, input(t, at("2026-11-25T06:00:00Z")), false},
		"overnight, day before":    {why + `, "windows": [{"weekdays": ["tue"], "from": "22:00", "to": "06:00"}]`, input(t, at("2026-11-24T05:00:00Z")), false},
		"dates":                    {why + `, "windows": [{"fromDate": "2026-11-20", "toDate": "2026-11-24"}]`, input(t), true},
		"dates, over":              {why + `, "windows": [{"fromDate": "2026-11-20", "toDate": "2026-11-23"}]`, input(t), false},
		"dates, open":              {why + `, "windows": [{"fromDate": "2026-11-24"}]`, input(t), true},
		"second window":            {why + `, "windows": [{"weekdays": ["sun"]}, {"weekdays": ["tue"]}]`, input(t), true},
		"path written another way": {why + `, "paths": ["governance/**"]`, input(t, path("src/../governance/rules")), true},
		"absolute path":            {why + `, "paths": ["governance/**"]`, input(t, path("/governance/rules")), true},
		"dotted path":              {why + `, "paths": ["governance/**"]`, input(t, path("./governance/rules")), true},
		"doubled slash":            {why + `, "paths": ["governance/**"]`, input(t, path("x//governance")), true},
		"path with hidden names":   {why + `, "paths": ["governance/**"]`, input(t, path(".github/..x/a...")), false},
	} {
		t.Run(name, func(t *testing.T) {
			v := evaluate(t, withSettings(t, `{"blocked": [{`+c.entry+`}]}`), c.in)
			if v.Allow == c.want || (len(v.Violations) > 0) != c.want {
				t.Errorf("verdict is %+v", v)
			}
			for _, violation := range v.Violations {
				if !strings.HasPrefix(violation.Rule, "blocked/") || violation.Message == "" {
					t.Errorf("violation is %+v", violation)
				}
			}
		})
	}
}

func TestWarningAllows(t *testing.T) {
	p := withSettings(t, `{"blocked": [{"name": "friday", "why": "nobody is here tomorrow", "effect": "warn"}]}`)
	v := evaluate(t, p, input(t))
	if !v.Allow || !slices.Equal(v.Violations, []upgrade.Violation{{Rule: "blocked/friday", Message: "nobody is here tomorrow"}}) {
		t.Errorf("verdict is %+v", v)
	}
}

func TestBudget(t *testing.T) {
	for name, c := range map[string]struct {
		budgets string
		allow   bool
	}{
		"exactly":          {`[{"name": "web", "target": "web", "currency": "EUR", "limitMinorUnits": 9500}]`, true},
		"one too many":     {`[{"name": "web", "target": "web", "currency": "EUR", "limitMinorUnits": 9499}]`, false},
		"by pattern":       {`[{"name": "all", "target": "*", "currency": "EUR", "limitMinorUnits": 9499}]`, false},
		"other target":     {`[{"name": "db", "target": "db", "currency": "EUR", "limitMinorUnits": 0}]`, true},
		"other currency":   {`[{"name": "web", "target": "web", "currency": "USD", "limitMinorUnits": 0}]`, true},
		"narrowest of two": {`[{"name": "a", "target": "*", "currency": "EUR", "limitMinorUnits": 99999}, {"name": "b", "target": "web", "currency": "EUR", "limitMinorUnits": 1}]`, false},
		"largest amount":   {`[{"name": "web", "target": "web", "currency": "EUR", "limitMinorUnits": 9007199254740991}]`, true},
	} {
		t.Run(name, func(t *testing.T) {
			if v := evaluate(t, withSettings(t, `{"budgets": `+c.budgets+`}`), input(t)); v.Allow != c.allow {
				t.Errorf("verdict is %+v", v)
			}
		})
	}
	// Large amounts are exact.
	p := withSettings(t, `{"budgets": [{"name": "web", "target": "web", "currency": "EUR", "limitMinorUnits": 9007199254740991}]}`)
	v := evaluate(t, p, input(t, func(in *upgrade.PolicyInput) {
		in.Manifest.Impact.Cost.MinorUnits = envelope.MaxInt
		in.Spent = []upgrade.Cost{{Currency: "EUR", MinorUnits: 1}}
	}))
	want := "target web has spent 1 of this month's 9007199254740991 EUR (in minor units), and this upgrade costs 9007199254740991; lower its cost, wait for the next month, or have the budget raised"
	if v.Allow || len(v.Violations) != 1 || v.Violations[0] != (upgrade.Violation{Rule: "budget/web", Message: want}) {
		t.Errorf("verdict is %+v", v)
	}
}

func TestRequiredTests(t *testing.T) {
	p := withSettings(t, `{"tests": [{"component": "sign*", "tests": ["unit", "hardware", "fuzz"]}, {"component": "web", "types": ["policy"], "tests": ["browser"]}]}`)
	v := evaluate(t, p, input(t))
	if v.Allow || !slices.Equal(rules(v), []string{"tests/fuzz", "tests/hardware"}) {
		t.Errorf("verdict is %+v", v)
	}
	v = evaluate(t, p, input(t, func(in *upgrade.PolicyInput) { in.Manifest.Preconditions.Tests = []string{"fuzz", "hardware", "unit"} }))
	if !v.Allow {
		t.Errorf("verdict is %+v", v)
	}
	for _, c := range []upgrade.Case{upgrade.CaseEmergency, upgrade.CaseAutomatic, upgrade.CasePreapproved} {
		if v := evaluate(t, p, input(t, func(in *upgrade.PolicyInput) { in.Case = c })); !v.Allow {
			t.Errorf("%s waives tests, verdict is %+v", c, v)
		}
	}
}

func TestOnCanaryFailure(t *testing.T) {
	p := withSettings(t, `{"onCanaryFailure": {"default": "escalate", "targets": {"web": "rollback", "db": "escalate"}}}`)
	for target, want := range map[envelope.ID]upgrade.CanaryAction{"web": upgrade.CanaryRollback, "db": upgrade.CanaryEscalate, "other": upgrade.CanaryEscalate} {
		if v := evaluate(t, p, input(t, func(in *upgrade.PolicyInput) { in.Manifest.Target.Name = target })); v.OnCanaryFailure != want {
			t.Errorf("%s: %s", target, v.OnCanaryFailure)
		}
	}
	if v := evaluate(t, p, input(t, func(in *upgrade.PolicyInput) { in.Manifest.BaseRevision = upgrade.None })); v.OnCanaryFailure != upgrade.CanaryEscalate {
		t.Errorf("first upgrade: %s", v.OnCanaryFailure)
	}
}

// A mistake in the settings stops everything, and says where it is.
func TestMistakenSettingsDeny(t *testing.T) {
	for settings, where := range map[string]string{
		`{}`:                               "is missing",
		`{"sentinelnet": []}`:              "is not an object",
		`{"sentinelnet": {"block": []}}`:   `"block" is unknown`,
		`{"sentinelnet": {"blocked": {}}}`: `"blocked" is not a list`,
	} {
		denied(t, policyOf(t, settings), where)
	}
	for members, where := range map[string]string{
		`{"blocked": ["x"]}`:                                                                       "blocked[0] is not an object",
		`{"blocked": [{"name": "x"}]}`:                                                             `blocked[0] lacks "why"`,
		`{"blocked": [{"name": "X", "why": "y"}]}`:                                                 "blocked[0].name",
		`{"blocked": [{"name": "x", "why": ""}]}`:                                                  "blocked[0].why",
		`{"blocked": [{"name": "x", "why": "y", "type": ["code"]}]}`:                               `unknown member "type"`,
		`{"blocked": [{"name": "x", "why": "y", "types": []}]}`:                                    "blocked[0].types",
		`{"blocked": [{"name": "x", "why": "y", "types": "code"}]}`:                                "blocked[0].types",
		`{"blocked": [{"name": "x", "why": "y", "types": ["coed"]}]}`:                              "blocked[0].types",
		`{"blocked": [{"name": "x", "why": "y", "effect": "denied"}]}`:                             "blocked[0].effect",
		`{"blocked": [{"name": "x", "why": "y", "targets": [7]}]}`:                                 "blocked[0].targets",
		`{"blocked": [{"name": "x", "why": "y", "windows": [{}]}]}`:                                "limits nothing",
		`{"blocked": [{"name": "x", "why": "y", "windows": [7]}]}`:                                 "blocked[0].windows[0]",
		`{"blocked": [{"name": "x", "why": "y", "windows": [{"from": "10:00"}]}]}`:                 "needs both",
		`{"blocked": [{"name": "x", "why": "y", "windows": [{"from": "9:00", "to": "10:00"}]}]}`:   "windows[0].from",
		`{"blocked": [{"name": "x", "why": "y", "windows": [{"weekdays": ["Sunday"]}]}]}`:          "windows[0].weekdays",
		`{"blocked": [{"name": "x", "why": "y", "windows": [{"fromDate": "24.12.2026"}]}]}`:        "windows[0].fromDate",
		`{"budgets": [{"name": "x", "target": "web", "currency": "EUR"}]}`:                         `lacks "limitMinorUnits"`,
		`{"budgets": [{"name": "x", "target": "web", "currency": "eur", "limitMinorUnits": 1}]}`:   "budgets[0].currency",
		`{"budgets": [{"name": "x", "target": "web", "currency": "EUR", "limitMinorUnits": "1"}]}`: "budgets[0].limitMinorUnits",
		`{"budgets": [{"name": "x", "target": "web", "currency": "EUR", "limitMinorUnits": -1}]}`:  "budgets[0].limitMinorUnits",
		`{"budgets": [{"name": "x", "target": "web", "currency": "EUR", "limitMinorUnits": 1.5}]}`: "budgets[0].limitMinorUnits",
		`{"tests": [{"component": "x", "tests": [""]}]}`:                                           "tests[0].tests",
		`{"onCanaryFailure": {"default": "ignore"}}`:                                               "onCanaryFailure",
		`{"onCanaryFailure": {"targets": {}}}`:                                                     "onCanaryFailure",
		`{"onCanaryFailure": {"default": "rollback", "targets": {"web": "undo"}}}`:                 "onCanaryFailure",
		`{"onCanaryFailure": null}`:                                                                "onCanaryFailure",
	} {
		denied(t, withSettings(t, members), where)
	}
}

func policyOf(t *testing.T, settings string) *policy.Embedded {
	t.Helper()
	p, err := policy.Load(bundle(t, settings))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func denied(t *testing.T, p *policy.Embedded, where string) {
	t.Helper()
	v := evaluate(t, p, input(t))
	said := slices.ContainsFunc(v.Violations, func(v upgrade.Violation) bool {
		return v.Rule == "settings" && strings.Contains(v.Message, where)
	})
	if v.Allow || !said {
		t.Errorf("%s: verdict is %+v", where, v)
	}
}
