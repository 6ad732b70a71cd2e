package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/deploy"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// honest is an operator's program as docs would show it, with sed for JSON.
const honest = `#!/bin/sh
set -eu
state=$1 verb=$2 input=$(cat)
field() { printf %s "$input" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
case $verb in
live) if test -e "$state/live"; then cat "$state/live"; else echo none; fi ;;
apply)
  echo run >> "$state/runs"
  cp "$(field artifact)" "$state/artifact"
  printf %s "$input" > "$state/input"
  field patch > "$state/live" ;;
esac
`

func program(t *testing.T, text string, timeout time.Duration) (d *deploy.Exec, state string) {
	t.Helper()
	state = t.TempDir()
	name := filepath.Join(state, "program")
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := deploy.NewExec([]string{name, state}, timeout, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return d, state
}

func TestExec(t *testing.T) {
	t.Setenv("KERNELGATE_SECRET", "do-not-show")
	d, state := program(t, strings.Replace(honest, "apply)", "apply)\n  env > \"$state/env\"", 1), 10*time.Second)
	if got := live(t, d); got != upgrade.None {
		t.Errorf("live is %s", got)
	}
	one, two := []byte("any bytes"), []byte("other bytes")
	apply(t, d, upgrade.None, one)
	apply(t, d, upgrade.None, one) // done already
	if err := d.Apply(t.Context(), change(upgrade.None, two)); !errors.Is(err, workflow.ErrBaseMoved) {
		t.Errorf("error is %v", err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(state, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if read("runs") != "run\n" || read("artifact") != string(one) || strings.Contains(read("env"), "do-not-show") {
		t.Errorf("runs %q, artifact %q", read("runs"), read("artifact"))
	}
	want := fmt.Sprintf(`"base":"none","patch":"%s","record":"eyJwYXlsb2FkIjoiIn0=","target":{"manifestId":"web","name":"web"},"upgradeId":"0b6bc2a4-0a3d-4d0a-9d5a-3f5f6f3c2a10"}`, envelope.DigestOf(one))
	if got := read("input"); !strings.HasSuffix(got, want) {
		t.Errorf("input is %s, not ...%s", got, want)
	}
	apply(t, d, revision(one), two)
}

func TestExecFailures(t *testing.T) {
	artifact := []byte("bytes")
	for name, c := range map[string]struct {
		text string
		says string
	}{
		"apply fails":            {"case $2 in live) echo none;; apply) echo disk is full >&2; exit 3;; esac", "disk is full"},
		"apply does nothing":     {"case $2 in live) echo none;; esac", "is live still"},
		"live fails":             {"exit 1", "exit status 1"},
		"live is no revision":    {"echo v1", "neither a digest"},
		"live is empty":          {"true", "neither a digest"},
		"live says too much":     {"yes | head -c 100000", "more than"},
		"endless output":         {"yes", "deadline exceeded"},
		"hangs":                  {"sleep 60", "deadline exceeded"},
		"hangs with a child":     {"sleep 60 & wait", "deadline exceeded"},
		"escape codes in errors": {`printf '\033[31mred' >&2; exit 1`, "[31mred"},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := program(t, "#!/bin/sh\n"+c.text+"\n", 400*time.Millisecond)
			start := time.Now()
			err := d.Apply(t.Context(), change(upgrade.None, artifact))
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("error is %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestExecDoesNotRunOnWrongBytes(t *testing.T) {
	d, state := program(t, honest, 10*time.Second)
	bad := change(upgrade.None, []byte("approved"))
	bad.Artifact = change(upgrade.None, []byte("another")).Artifact
	if err := d.Apply(t.Context(), bad); !errors.Is(err, workflow.ErrArtifactCorrupt) {
		t.Errorf("error is %v", err)
	}
	large := change(upgrade.None, make([]byte, 1<<20+1))
	if err := d.Apply(t.Context(), large); !errors.Is(err, workflow.ErrUnsafeArtifact) {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(state, "runs")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program ran: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Apply(ctx, change(upgrade.None, []byte("x"))); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestNewExecRefuses(t *testing.T) {
	for _, argv := range [][]string{nil, {"deploy.sh"}, {"./deploy.sh"}} {
		if _, err := deploy.NewExec(argv, time.Second, 1); err == nil {
			t.Errorf("%q accepted", argv)
		}
	}
	if _, err := deploy.NewExec([]string{"/bin/true"}, 0, 1); err == nil {
		t.Error("no timeout accepted")
	}
}
