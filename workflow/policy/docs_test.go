package policy_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/workflow/policy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// example is the one block of code in docs/policy.md of a language.
func example(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/policy.md has %d blocks of %s", len(blocks), language)
	}
	return blocks[0][1]
}

// What docs/policy.md shows works.
func TestDocumentedSettings(t *testing.T) {
	p := policyOf(t, example(t, "json"))
	for when, rule := range map[string]string{
		"2026-11-24T12:00:00Z": "",
		"2026-11-27T15:59:59Z": "",
		"2026-11-27T16:00:00Z": "blocked/weekend",
		"2026-11-28T00:00:00Z": "blocked/weekend",
	} {
		v := evaluate(t, p, input(t, at(when), func(in *upgrade.PolicyInput) { in.Manifest.Preconditions.Tests = []string{"unit", "hardware", "e2e"} }))
		if want := strings.Fields(rule + " blocked/signer"); v.Allow != (rule == "") || strings.Join(rules(v), " ") != strings.Join(want, " ") {
			t.Errorf("%s: %+v", when, v)
		}
	}
}

func TestDocumentedPolicy(t *testing.T) {
	p, err := policy.Load(files("p.rego", example(t, "rego")))
	if err != nil {
		t.Fatal(err)
	}
	if v := evaluate(t, p, input(t)); !v.Allow {
		t.Errorf("%+v", v)
	}
	v := evaluate(t, p, input(t, func(in *upgrade.PolicyInput) { in.Manifest.Type = upgrade.TypePolicy }))
	if v.Allow || len(v.Violations) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestDocumentedDigest(t *testing.T) {
	p, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	script := strings.Replace(example(t, "sh"), "DIRECTORY", "sentinelnet", 1)
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), p.Digest().Hex()) {
		t.Errorf("%s, %v; the digest is %s", out, err, p.Digest())
	}
}
