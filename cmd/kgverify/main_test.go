package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func root(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".root.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func bundle(name string) string { return filepath.Join("testdata", name+".bundle.json") }

func write(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func kgverify(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	quorum, digest := bundle("quorum"), root(t, "quorum")
	content, err := os.ReadFile(quorum)
	if err != nil {
		t.Fatal(err)
	}
	artifact := write(t, []byte("the new release"))
	for name, c := range map[string]struct {
		args  []string
		stdin string
		want  int
		says  string // on stdout or stderr
	}{
		"valid":                    {[]string{"--root", digest, quorum}, "", exitValid, "VALID  upgrade"},
		"valid on standard input":  {[]string{"--root", digest, "-"}, string(content), exitValid, "VALID  upgrade"},
		"flags behind the file":    {[]string{quorum, "--root", digest}, "", exitValid, "VALID  upgrade"},
		"its artifact":             {[]string{"--root", digest, "--artifact", artifact, quorum}, "", exitValid, "VALID  upgrade"},
		"ratified":                 {[]string{"--root", root(t, "ratified-emergency"), bundle("ratified-emergency")}, "", exitValid, "emergency"},
		"pre-approved":             {[]string{"--root", root(t, "pre-approved-rollback"), bundle("pre-approved-rollback")}, "", exitValid, "preapproved"},
		"automatic":                {[]string{"--root", root(t, "automatic-rollback"), bundle("automatic-rollback")}, "", exitValid, "ratification-expired"},
		"automatic, without audit": {[]string{"--root", root(t, "automatic-rollback"), "--no-audit", bundle("automatic-rollback")}, "", exitValid, "not looked at"},
		"help":                     {[]string{"--help"}, "", exitValid, "usage: kgverify"},
		"another artifact":         {[]string{"--root", digest, "--artifact", quorum, quorum}, "", exitInvalid, "artifact_mismatch"},
		"another root":             {[]string{"--root", "sha256:" + strings.Repeat("0", 64), quorum}, "", exitInvalid, "registry_root_mismatch"},
		"a newline behind":         {[]string{"--root", digest, "-"}, string(content) + "\n", exitInvalid, "payload_not_canonical"},
		"empty":                    {[]string{"--root", digest, "-"}, "", exitInvalid, "payload_malformed"},
		"too large":                {[]string{"--root", digest, "-"}, strings.Repeat(" ", upgrade.MaxBundle+1), exitInvalid, "payload_malformed"},
		"no root":                  {[]string{quorum}, "", exitUsage, "--root is missing"},
		"a malformed root":         {[]string{"--root", "sha256:12", quorum}, "", exitUsage, "is not a digest"},
		"an empty artifact":        {[]string{"--root", digest, "--artifact", "", quorum}, "", exitUsage, "the name is empty"},
		"two artifacts":            {[]string{"--root", digest, "--artifact", quorum, "--artifact", artifact, quorum}, "", exitUsage, "given twice"},
		"a flag behind --":         {[]string{"--root", digest, "--", quorum, "--no-audit"}, "", exitUsage, "one is needed"},
		"a file behind --":         {[]string{"--root", digest, "--", quorum}, "", exitValid, "VALID  upgrade"},
		"no file":                  {[]string{"--root", digest}, "", exitUsage, "one is needed"},
		"two files":                {[]string{"--root", digest, quorum, quorum}, "", exitUsage, "one is needed"},
		"an unknown flag":          {[]string{"--root", digest, "--force", quorum}, "", exitUsage, "force"},
		"a file that is not there": {[]string{"--root", digest, quorum + ".no"}, "", exitNoRead, "cannot read the bundle"},
		"a directory":              {[]string{"--root", digest, t.TempDir()}, "", exitNoRead, "cannot read the bundle"},
		"an artifact not there":    {[]string{"--root", digest, "--artifact", artifact + ".no", quorum}, "", exitNoRead, "cannot read the artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := kgverify(c.stdin, c.args...)
			if code != c.want || !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("exit %d, not %d, or %q is not said:\n%s%s", code, c.want, c.says, stdout, stderr)
			}
			if c.want != exitValid && c.want != exitInvalid && stdout != "" {
				t.Errorf("no verdict was reached, yet stdout has %q", stdout)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	digest := root(t, "quorum")
	code, stdout, _ := kgverify("", "--json", "--root", digest, bundle("quorum"))
	var a answer
	if err := json.Unmarshal([]byte(stdout), &a, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	if code != exitValid || !a.Valid || a.Class != "" || a.Case != upgrade.CaseQuorum || len(a.Approvers) != upgrade.Quorum || a.Target != "web" {
		t.Errorf("exit %d: %s", code, stdout)
	}
	code, stdout, _ = kgverify("{}", "--json", "--root", digest, "-")
	a = answer{}
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		t.Fatal(err)
	}
	if code != exitInvalid || a.Valid || a.Class != failure.PayloadMalformed && a.Class != failure.FieldInvalid || a.Detail == "" {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

// The proof that the rest is honest runs anywhere: no cgo, database or network.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		switch name {
		case "runtime/cgo", "database/sql", "net/http":
			t.Errorf("kgverify depends on %s", name)
		}
	}
}
