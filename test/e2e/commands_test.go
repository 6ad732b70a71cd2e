package e2e

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer/awskms/awskmstest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (p *place) commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){"expand": expand, "serving": serving, "aws": p.cloud, "applied-by": appliedBy}
}

// expand IN OUT writes IN with variables for their values; $ROOT is what the
// file root holds.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), func(name string) string {
		if name == "ROOT" {
			return strings.TrimSpace(ts.ReadFile("root"))
		}
		return ts.Getenv(name)
	})
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// serving FILE waits until the gateway whose log is FILE says where it serves
// and is ready, and sets $KGCTL_SERVER.
func serving(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		log, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(log)) {
			var entry struct {
				Msg string `json:"msg"`
				URL string `json:"url"`
			}
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "the gateway serves" && ready(entry.URL) {
				ts.Setenv("KGCTL_SERVER", entry.URL)
				return
			}
		}
	}
	ts.Fatalf("the gateway does not serve:\n%s", ts.ReadFile(args[0]))
}

func ready(url string) bool {
	c, err := client.New(url, "", nil)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := c.Ready(ctx)
	return err == nil && r.Ready
}

// cloud is "aws away" and "aws back".
func (p *place) cloud(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "away":
		p.aws.Set(awskmstest.Fault{Code: "KMSInternalException", Status: 500})
	case "back":
		p.aws.Set(awskmstest.Fault{})
	default:
		ts.Fatalf("usage: aws away|back")
	}
}

// appliedBy BUNDLE ENROLMENT: the key that is enrolled there signed the record.
func appliedBy(ts *testscript.TestScript, neg bool, args []string) {
	root, err := envelope.ParseDigest(strings.TrimSpace(ts.ReadFile("root")))
	ts.Check(err)
	v, err := upgrade.VerifyFile([]byte(ts.ReadFile(args[0])), root, true)
	ts.Check(err)
	var file struct {
		AppliedRecord envelope.Envelope `json:"appliedRecord"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &file))
	ts.Check(upgrade.VerifyRecord(v.Verdict, file.AppliedRecord))
	env, err := envelope.Parse([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	signed := file.AppliedRecord.Signatures[0].KeyID
	if enrolled := env.Signatures[0].KeyID; (signed == enrolled) == neg {
		ts.Fatalf("the record is signed by %s, and %s enrols %s", signed, args[1], enrolled)
	}
}
