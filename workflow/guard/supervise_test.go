package guard

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

func supervisor(t *testing.T, script string, starts *int) Supervisor {
	t.Helper()
	return Supervisor{
		Command: func() *exec.Cmd { *starts++; return exec.Command("/bin/sh", "-c", script) },
		Socket:  filepath.Join(t.TempDir(), "none"), Every: 10 * time.Millisecond, Patience: 50 * time.Millisecond,
		Backoff: time.Millisecond, Log: func(string, error) {},
	}
}

func TestSupervisorStopsOnPIN(t *testing.T) {
	starts := 0
	err := Supervise(t.Context(), supervisor(t, "exit 77", &starts))
	if !errors.Is(err, signer.ErrPIN) || starts != 1 {
		t.Fatalf("%v after %d starts", err, starts)
	}
}

func TestSupervisorRestarts(t *testing.T) {
	for name, script := range map[string]string{"stuck": "exit 75", "hung": "exec sleep 60"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			starts := 0
			s := supervisor(t, script, &starts)
			s.Log = func(string, error) {
				if starts == 3 {
					cancel()
				}
			}
			if err := Supervise(ctx, s); err != nil || starts != 3 {
				t.Fatalf("%v after %d starts", err, starts)
			}
		})
	}
}
