package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/logtest"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// logGateway serves a log as the API does, and nothing else.
func logGateway(t *testing.T, log *logtest.Log, checkpoint string) string {
	t.Helper()
	answer := func(w http.ResponseWriter, v any) {
		if err := json.MarshalWrite(w, v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/registry", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, client.RegistryChain{Entries: log.Entries, Suspensions: []client.Envelope{}})
	})
	mux.HandleFunc("/v1/checkpoint", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(checkpoint)) })
	mux.HandleFunc("/v1/events", func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.FormValue("from"))
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		page := client.EventPage{Events: []client.Event{}}
		for i := from; i < min(from+limit, len(log.Leaves)); i++ {
			page.Events = append(page.Events, client.Event{Seq: int64(i), Leaf: log.Leaves[i]})
		}
		answer(w, page)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// kgctl runs one command and returns what it wrote.
func kgctl(t *testing.T, args ...string) (code int, out, messages string) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	in, stdout, stderr := open("in"), open("out"), open("messages")
	code = run(t.Context(), args, in, stdout, stderr)
	for _, f := range []*os.File{in, stdout, stderr} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return code, read("out"), read("messages")
}

func TestAuditExportAndVerify(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	log := logtest.New(450) // more than two pages
	url, root := logGateway(t, log, log.Checkpoint(440)), log.Root.String()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kept, later := write("kept.txt", log.Checkpoint(100)), write("later.txt", log.Checkpoint(450))
	policy := write("policy.txt", "witness w witness.example/w1\n")
	file := filepath.Join(dir, "audit.jsonl")

	code, _, messages := kgctl(t, "audit", "export", "--server", url, "--root", root, "-f", file)
	if code != exitOK || !strings.Contains(messages, "440 events") {
		t.Fatalf("exit %d: %s", code, messages)
	}
	exported, err := os.ReadFile(file)
	if err != nil || string(exported) != string(log.File(log.Checkpoint(440), log.Leaves[:440])) {
		t.Errorf("the export is not the log: %v", err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"file":                   {[]string{"--root", root, file}, exitOK, "VALID  the log of kernel-test, 440 events"},
		"served":                 {[]string{"--root", root, "--server", url}, exitOK, "440 events"},
		"kept":                   {[]string{"--root", root, "--checkpoint", kept, file}, exitOK, "kept checkpoints (1)"},
		"kept a later one":       {[]string{"--root", root, "--checkpoint", later, file}, exitVerification, "audit_fork"},
		"served, kept later":     {[]string{"--root", root, "--server", url, "--checkpoint", later}, exitVerification, "audit_fork"},
		"older than asked":       {[]string{"--root", root, "--max-age", "2h", file}, exitVerification, "time_invalid"},
		"young enough":           {[]string{"--root", root, "--max-age", "876000h", file}, exitOK, "VALID"},
		"json":                   {[]string{"--root", root, "-o", "json", file}, exitOK, `"events": 440`},
		"another root":           {[]string{"--root", "sha256:" + strings.Repeat("0", 64), file}, exitVerification, "registry_root_mismatch"},
		"no root":                {[]string{file}, exitUsage, "pinned root"},
		"two files":              {[]string{"--root", root, file, file}, exitUsage, "one FILE"},
		"no policy's name":       {[]string{"--root", root, "--witness-policy", "", file}, exitUsage, "name is empty"},
		"a policy that is none":  {[]string{"--root", root, "--witness-policy", policy, file}, exitFailure, "line 1"},
		"a file that is not one": {[]string{"--root", root, kept}, exitVerification, "NOT VALID"},
		"not there":              {[]string{"--root", root, file + ".no"}, exitFailure, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, messages := kgctl(t, append([]string{"audit", "verify"}, c.args...)...)
			if code != c.code || !strings.Contains(out+messages, c.says) {
				t.Errorf("exit %d, not %d, or %q is not said:\n%s%s", code, c.code, c.says, out, messages)
			}
		})
	}
	if code, _, messages := kgctl(t, "audit", "export", "--server", url, "--root", root, "-f", file); code != exitFailure || !strings.Contains(messages, "never overwritten") {
		t.Errorf("a second export: exit %d: %s", code, messages)
	}
}

// A gateway that holds back events gives no file, and names the event.
func TestAuditExportOfCutLog(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	log := logtest.New(250)
	note := log.Checkpoint(250)
	log.Leaves = log.Leaves[:210]
	url, file := logGateway(t, log, note), filepath.Join(t.TempDir(), "audit.jsonl")
	code, _, messages := kgctl(t, "audit", "export", "--server", url, "--root", log.Root.String(), "-f", file)
	if code != exitVerification || !strings.Contains(messages, "event 210") {
		t.Errorf("exit %d: %s", code, messages)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("half a log is left behind")
	}
	fork := log.Fork(100)
	for range 200 {
		fork.Append(log.Key, auditlog.UpgradeRejected, nil)
	}
	if code, out, _ := kgctl(t, "audit", "verify", "--server", logGateway(t, fork, note), "--root", log.Root.String()); code != exitVerification || !strings.Contains(out, "NOT VALID") {
		t.Errorf("exit %d: %s", code, out)
	}
}
