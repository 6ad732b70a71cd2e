package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/storage/auditlog/logtest"
)

func TestAuditExitCodes(t *testing.T) {
	log := logtest.New(12)
	file := log.File(log.Checkpoint(12), log.Leaves)
	good, root := write(t, file), log.Root.String()
	kept, kept6 := write(t, []byte(log.Checkpoint(12))), write(t, []byte(log.Checkpoint(6)))
	old := write(t, log.File(log.Checkpoint(6), log.Leaves[:6]))
	fork := log.Fork(4)
	for range 12 {
		fork.Append(log.Key, auditlog.UpgradeRejected, nil)
	}
	forked := write(t, fork.File(fork.Checkpoint(16), fork.Leaves))
	policy := write(t, []byte("witness w w.example/1+6cf4d7ba+BPf1n6tqXtCPlJHWGlpRYcVUkQH5BBK1Jm+8y/m9zSQO\nquorum w\n"))
	none := write(t, []byte("quorum none\n"))
	for name, c := range map[string]struct {
		args []string
		want int
		says string
	}{
		"valid":                  {[]string{"--root", root, good}, exitValid, "VALID  the log of kernel-test, 12 events"},
		"standard input":         {[]string{"--root", root, "-"}, exitValid, "none was given"},
		"flags behind":           {[]string{good, "--root", root}, exitValid, "VALID"},
		"kept":                   {[]string{"--root", root, "--checkpoint", kept, "--checkpoint", kept6, good}, exitValid, "kept checkpoints (2)"},
		"no witness is needed":   {[]string{"--root", root, "--witness-policy", none, good}, exitValid, "VALID"},
		"help":                   {[]string{"--help"}, exitValid, "usage: kgverify audit"},
		"restored":               {[]string{"--root", root, "--checkpoint", kept, old}, exitInvalid, "audit_fork"},
		"forked":                 {[]string{"--root", root, "--checkpoint", kept, forked}, exitInvalid, "audit_fork"},
		"another root":           {[]string{"--root", "sha256:" + strings.Repeat("0", 64), good}, exitInvalid, "registry_root_mismatch"},
		"kept is no checkpoint":  {[]string{"--root", root, "--checkpoint", good, good}, exitInvalid, "the kept checkpoint"},
		"silent for too long":    {[]string{"--root", root, "--max-age", "2h", good}, exitInvalid, "time_invalid"},
		"not for too long":       {[]string{"--root", root, "--max-age", "876000h", good}, exitValid, "VALID"},
		"an age before now":      {[]string{"--root", root, "--max-age", "-2h", good}, exitUsage, "--max-age"},
		"no root":                {[]string{good}, exitUsage, "--root is missing"},
		"an empty policy's name": {[]string{"--root", root, "--witness-policy", "", good}, exitUsage, "the name is empty"},
		"no file":                {[]string{"--root", root}, exitUsage, "one is needed"},
		"a bundle's flag":        {[]string{"--root", root, "--no-audit", good}, exitUsage, "no-audit"},
		"policy of a bad key":    {[]string{"--root", root, "--witness-policy", policy, good}, exitNoRead, "hash of witness"},
		"file not there":         {[]string{"--root", root, good + ".no"}, exitNoRead, "cannot read the log"},
		"kept not there":         {[]string{"--root", root, "--checkpoint", kept + ".no", good}, exitNoRead, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := kgverify(string(file), append([]string{"audit"}, c.args...)...)
			if code != c.want || !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("exit %d, not %d, or %q is not said:\n%s%s", code, c.want, c.says, stdout, stderr)
			}
			if c.want != exitValid && c.want != exitInvalid && stdout != "" {
				t.Errorf("no verdict was reached, yet stdout has %q", stdout)
			}
		})
	}
}

func TestAuditJSON(t *testing.T) {
	log := logtest.New(5)
	file := log.File(log.Checkpoint(5), log.Leaves)
	code, stdout, _ := kgverify(string(file), "audit", "--json", "--root", log.Root.String(), "-")
	var r history.Report
	if err := json.Unmarshal([]byte(stdout), &r, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	if code != exitValid || !r.Valid || r.Row != nil || r.Events != 5 || r.EventKeys != 1 || *r.From != log.Start {
		t.Errorf("exit %d: %s", code, stdout)
	}
	bad := bytes.Replace(file, log.Leaves[3], log.Leaves[2], 1)
	code, stdout, _ = kgverify(string(bad), "audit", "--json", "--root", log.Root.String(), "-")
	r = history.Report{}
	if err := json.Unmarshal([]byte(stdout), &r, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	if code != exitInvalid || r.Valid || r.Class != failure.AuditChainBroken || r.Row == nil || *r.Row != 3 {
		t.Errorf("exit %d: %s", code, stdout)
	}
}
