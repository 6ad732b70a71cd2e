package policy_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/policy"
)

const head = "package kernelgate.sentinelnet\n"

func files(texts ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(texts); i += 2 {
		m[texts[i]] = &fstest.MapFile{Data: []byte(texts[i+1])}
	}
	return m
}

func TestDigest(t *testing.T) {
	fromEmbed, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	fromDir, err := policy.LoadDir("sentinelnet")
	if err != nil {
		t.Fatal(err)
	}
	if fromEmbed.Digest() != fromDir.Digest() {
		t.Error("the same policy has two digests")
	}
	// By hand, as docs/policy.md defines it.
	const a, b = head + "allow := true\nviolations := set()\n", head + `onCanaryFailure := "rollback"` + "\n"
	p, err := policy.Load(files("z.rego", a, "a/b.rego", b, "data.json", "{}", "README.md", "ignored", "z_test.rego", "ignored", ".hidden", "ignored", ".git/config", "ignored"))
	if err != nil {
		t.Fatal(err)
	}
	listing := fmt.Sprintf("a/b.rego\x00%d\x00%sdata.json\x002\x00{}z.rego\x00%d\x00%s", len(b), b, len(a), a)
	if p.Digest() != envelope.Digest(sha256.Sum256([]byte(listing))) {
		t.Error("the digest is not that of the listing")
	}
	changed := bundle(t, "")
	changed["data.json"].Data = append(changed["data.json"].Data, '\n')
	other, err := policy.Load(changed)
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest() == fromDir.Digest() {
		t.Error("another policy has the same digest")
	}
}

func TestLoadRefuses(t *testing.T) {
	const whole = head + "allow := true\nviolations := set()\nonCanaryFailure := \"rollback\"\n"
	const rest = "violations := set()\nonCanaryFailure := \"rollback\"\n"
	if _, err := policy.Load(files("p.rego", whole)); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("# comment\n", 60_000)
	many := files("p.rego", whole)
	for i := range 200 {
		many[fmt.Sprint(i, ".rego")] = &fstest.MapFile{Data: []byte("package x")}
	}
	for name, fsys := range map[string]fstest.MapFS{
		"nothing":               files(),
		"another package":       files("p.rego", "package other\nallow := true\n"),
		"no allow":              files("p.rego", head+rest),
		"not Rego":              files("p.rego", whole+"allow if {"),
		"Rego v0":               files("p.rego", head+"allow { true }\n"+rest),
		"two values of a rule":  files("p.rego", whole, "data.json", `{"kernelgate": {"sentinelnet": {"allow": true}}}`),
		"data is not JSON":      files("p.rego", whole, "data.json", "{"),
		"data is a list":        files("p.rego", whole, "data.json", "[]"),
		"data twice":            files("p.rego", whole, "data.json", `{"a": 1, "a": 2}`),
		"data below":            files("p.rego", whole, "sub/data.json", "{}"),
		"data as YAML":          files("p.rego", whole, "data.yaml", "a: 1"),
		"too large":             files("p.rego", whole+large, "q.rego", "package q\n"+large),
		"too many":              many,
		"network":               files("p.rego", head+`allow := http.send({"method": "get", "url": "http://127.0.0.1"}).status_code == 200`+"\n"+rest),
		"resolver":              files("p.rego", head+`allow := count(net.lookup_ip_addr("localhost")) > 0`+"\n"+rest),
		"environment":           files("p.rego", head+`allow := opa.runtime().env.ALLOW == "1"`+"\n"+rest),
		"clock":                 files("p.rego", head+"allow := time.now_ns() > 0\n"+rest),
		"clock in tokens":       files("p.rego", head+`allow := io.jwt.decode_verify("x", {})[0]`+"\n"+rest),
		"clock in certificates": files("p.rego", head+`allow := crypto.x509.parse_and_verify_certificates("x")[0]`+"\n"+rest),
		"chance":                files("p.rego", head+`allow := rand.intn("x", 2) == 0`+"\n"+rest),
		"uuid":                  files("p.rego", head+`allow := uuid.rfc4122("x") == ""`+"\n"+rest),
		"file by schema":        files("p.rego", head+`allow := json.match_schema({}, {"$ref": "file:///etc/passwd"})[0]`+"\n"+rest),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := policy.Load(fsys); err == nil {
				t.Error("loaded")
			} else if len(err.Error()) < 500 {
				t.Log(err)
			}
		})
	}
}

func TestLoadDirRefuses(t *testing.T) {
	if _, err := policy.LoadDir(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

// An answer that is not exactly of the form denies.
func TestAnswersOfAnotherForm(t *testing.T) {
	good := map[string]string{"allow": "true", "violations": "[]", "onCanaryFailure": `"rollback"`}
	for name, changes := range map[string]map[string]string{
		"allow undefined":      {"allow": "true if input.missing"},
		"violations undefined": {"violations": "[] if input.missing"},
		"action undefined":     {"onCanaryFailure": `"rollback" if input.missing`},
		"allow is a text":      {"allow": `"true"`},
		"allow is a number":    {"allow": "1"},
		"allow is null":        {"allow": "null"},
		"violations is null":   {"violations": "null"},
		"violations is object": {"violations": "{}"},
		"violation is a text":  {"violations": `["no"]`},
		"violation lacks rule": {"violations": `[{"message": "m"}]`},
		"violation has more":   {"violations": `[{"message": "m", "rule": "r", "why": "w"}]`},
		"empty message":        {"violations": `[{"message": "", "rule": "r"}]`},
		"control character":    {"violations": `[{"message": "a\u0007", "rule": "r"}]`},
		"direction override":   {"violations": `[{"message": "a\u202e", "rule": "r"}]`},
		"long rule":            {"violations": `[{"message": "m", "rule": sprintf("%0121d", [1])}]`},
		"too many violations":  {"violations": `[{"message": "m", "rule": "r"} | some _ in numbers.range(1, 101)]`},
		"another action":       {"onCanaryFailure": `"ignore"`},
		"a fourth member":      {"warnings": "[]"},
		"fails while it runs":  {"allow": `to_number(input.manifest.rationale) > 0`},
	} {
		t.Run(name, func(t *testing.T) {
			rules := maps.Clone(good)
			maps.Copy(rules, changes)
			text := head
			for rule, value := range rules {
				text += rule + " := " + value + "\n"
			}
			p, err := policy.Load(files("p.rego", text))
			if err != nil {
				t.Fatal(err)
			}
			if v, err := p.Evaluate(t.Context(), input(t)); err == nil {
				t.Errorf("verdict is %+v, %v", v, err)
			}
		})
	}
}

func TestEvaluationEnds(t *testing.T) {
	p, err := policy.Load(files("p.rego", head+`allow if count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i == j + 100001]) == 0
violations := []
onCanaryFailure := "rollback"
`))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := p.Evaluate(ctx, input(t)); err == nil {
		t.Error("it answered")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestSameInputSameVerdict(t *testing.T) {
	p := withSettings(t, `{"blocked": [{"name": "a", "why": "w"}, {"name": "b", "why": "w"}, {"name": "c", "why": "w", "effect": "warn"}], "tests": [{"component": "*", "tests": ["x", "y"]}]}`)
	want := evaluate(t, p, input(t))
	if len(want.Violations) < 5 {
		t.Fatalf("verdict is %+v", want)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				got, err := p.Evaluate(t.Context(), input(t))
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Error(diff, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEvaluate(b *testing.B) {
	p, err := policy.Default()
	if err != nil {
		b.Fatal(err)
	}
	in := input(b)
	for b.Loop() {
		evaluate(b, p, in)
	}
}
