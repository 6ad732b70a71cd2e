package canary

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// program is a smoke test.
type program struct {
	Exec
	target envelope.ID
}

// measure runs the program once; the window is not its matter. When its time
// is up it ends with all of its children.
func (p *program) measure(ctx context.Context, _ time.Duration) Measurement {
	m := Measurement{Codes: []string{}, Kind: "exec", Name: p.Name, Samples: 1}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	out := &head{limit: 400}
	cmd := exec.CommandContext(ctx, p.Argv[0], p.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	// Nothing that could be a secret of the gateway's own.
	cmd.Env = []string{"KERNELGATE_TARGET=" + string(p.target), "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("ended after %s", p.Timeout)
	}
	if err != nil {
		m.Errors = 1
		m.explain(fmt.Sprintf("%v: %s", err, out.kept))
	}
	m.setErrorRate()
	return m
}

func (p *program) judge(now, _ *Measurement) []string {
	if now.Errors > 0 {
		return []string{"exec"}
	}
	return nil
}

// head keeps the first bytes that are written to it.
type head struct {
	kept  []byte
	limit int
}

func (h *head) Write(b []byte) (int, error) {
	h.kept = append(h.kept, b[:min(len(b), h.limit-len(h.kept))]...)
	return len(b), nil
}
