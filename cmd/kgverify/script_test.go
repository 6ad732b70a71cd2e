package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kgverify": main})
}

// TestTranscripts runs the transcripts in testdata/script on the bundle files
// in testdata, which stand in each one's directory beside two that are made of
// them here: forged, with one approver more, and no-audit.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(e *testscript.Env) error {
		e.Setenv("ROOT", root(t, "quorum"))
		e.Setenv("OTHER_ROOT", "sha256:"+strings.Repeat("0", 64))
		for _, name := range []string{"quorum", "emergency", "ratified-emergency", "pre-approved-rollback", "automatic-rollback"} {
			data, err := os.ReadFile(bundle(name))
			if err != nil {
				return err
			}
			if err := put(e, name+".bundle.json", data); err != nil {
				return err
			}
		}
		if err := spoil(t, e); err != nil {
			return err
		}
		if err := put(e, "release.tar.gz", []byte("the new release")); err != nil {
			return err
		}
		return put(e, "other.tar.gz", []byte("another release"))
	}})
}

// spoil writes the two files that are made of the quorum's.
func spoil(t *testing.T, e *testscript.Env) error {
	t.Helper()
	data, err := os.ReadFile(bundle("quorum"))
	if err != nil {
		return err
	}
	if err := put(e, "forged.bundle.json", replace(t, data, `"approvers":["divlead-1","ryan"`, `"approvers":["divlead-1","divlead-2","ryan"`)); err != nil {
		return err
	}
	audit := data[bytes.Index(data, []byte(`"audit":`)):bytes.Index(data, []byte(`"mediaType":`))]
	return put(e, "no-audit.bundle.json", replace(t, data, string(audit), ""))
}

func put(e *testscript.Env, name string, data []byte) error {
	return os.WriteFile(filepath.Join(e.WorkDir, name), data, 0o600)
}

func replace(t *testing.T, data []byte, old, with string) []byte {
	t.Helper()
	if !bytes.Contains(data, []byte(old)) {
		t.Fatalf("the bundle has no %s", old)
	}
	return bytes.Replace(data, []byte(old), []byte(with), 1)
}

// BenchmarkProcess is kgverify as its users run it: a process that starts,
// reads one bundle file, judges it and ends. The house's limit is 50 ms.
func BenchmarkProcess(b *testing.B) {
	program := filepath.Join(b.TempDir(), "kgverify")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "quorum.root.txt"))
	if err != nil {
		b.Fatal(err)
	}
	digest := strings.TrimSpace(string(text))
	var longest time.Duration
	for b.Loop() {
		begin := time.Now()
		if out, err := exec.Command(program, "--root", digest, bundle("quorum")).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		longest = max(longest, time.Since(begin))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms-longest")
}
