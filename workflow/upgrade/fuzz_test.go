package upgrade_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// patience bounds one input: no text of a few kilobytes may take longer.
const patience = 5 * time.Second

// examples are the bundle files that kgverify is tested with, committed there.
func examples(f *testing.F) (files [][]byte, root envelope.Digest) {
	f.Helper()
	names, err := filepath.Glob("../../cmd/kgverify/testdata/*.bundle.json")
	if err != nil || len(names) == 0 {
		f.Fatalf("no bundle files: %v", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, data)
	}
	text, err := os.ReadFile("../../cmd/kgverify/testdata/quorum.root.txt")
	if err != nil {
		f.Fatal(err)
	}
	if root, err = envelope.ParseDigest(string(bytes.TrimSpace(text))); err != nil {
		f.Fatal(err)
	}
	return files, root
}

// FuzzVerifyFile: every refusal has its class, what is accepted writes again to
// the same bytes, and no input takes long.
func FuzzVerifyFile(f *testing.F) {
	files, root := examples(f)
	for _, data := range files {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		begin := time.Now()
		_, err := upgrade.VerifyFile(data, root, true)
		if spent := time.Since(begin); spent > patience {
			t.Fatalf("%d bytes took %s", len(data), spent)
		}
		if err != nil {
			if failure.ClassOf(err) == "" {
				t.Fatalf("a refusal without a class: %v", err)
			}
			return
		}
		file := new(upgrade.File)
		if err := envelope.DecodeCanonical(data, upgrade.MaxBundle, file); err != nil {
			t.Fatal(err)
		}
		if again, err := envelope.Canonical(file); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("accepted, but writes as %.200q, %v", again, err)
		}
	})
}

// FuzzParseQuorumBundle: what parses writes again to its input.
func FuzzParseQuorumBundle(f *testing.F) {
	files, _ := examples(f)
	for _, data := range files {
		file := new(upgrade.File)
		if err := envelope.DecodeCanonical(data, upgrade.MaxBundle, file); err != nil {
			f.Fatal(err)
		}
		f.Add(file.QuorumBundle.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := upgrade.ParseQuorumBundle(data)
		if err != nil {
			if failure.ClassOf(err) == "" {
				t.Fatalf("a refusal without a class: %v", err)
			}
			return
		}
		if again := b.Bytes(); !bytes.Equal(again, data) {
			t.Fatalf("parsed, but writes as %.200q", again)
		}
	})
}

// FuzzTestResult: whatever JSON a CI system signs, the verdict names one of
// three results, a test and the very patch, or has a class.
func FuzzTestResult(f *testing.F) {
	w := newWorld(f)
	w.register()
	f.Add([]byte(w.test))
	for _, s := range testResultSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > envelope.MaxPayload {
			return
		}
		w.test = string(payload)
		r, err := upgrade.VerifyTestResult(w.regs.Last(), w.testResult(), patch, decided)
		if err != nil {
			if failure.ClassOf(err) == "" {
				t.Fatalf("a refusal without a class: %v", err)
			}
			return
		}
		if r.Name == "" || r.Patch != patch || r.Passed() == (r.Result == "FAILED") {
			t.Fatalf("%+v of %q", r, payload)
		}
	})
}

// Texts that lenient parsers read in more than one way.
var testResultSeeds = []string{
	`{}`, `null`, `[]`, "\ufeff{}", `{"_type":null}`, `{"subject":[{}]}`,
	`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://in-toto.io/attestation/test-result/v0.1","subject":[{"digest":{"sha256":"00"},"Digest":{}}],"predicate":{"result":"PASSED","result":"FAILED"}}`,
	`{"_type":"https://in-toto.io/Statement/v1","predicate":{"configuration":[null],"result":"PASSED"}}`,
	`{"_type":"\ud800"}`,
}
