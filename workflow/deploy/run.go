package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// command is one run of a program: its arguments, what it reads, and its
// environment beside the few variables of the gateway's own that it gets.
type command struct {
	argv  []string
	stdin io.Reader
	env   []string
	limit int // the most bytes of standard output; more is an error
}

// run ends the program with all of its children when ctx ends. An error has
// the first lines of what the program wrote to standard error.
func (c command) run(ctx context.Context) (string, error) {
	out, diagnosis := &head{limit: c.limit}, &head{limit: 2000}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, out, diagnosis
	cmd.Env = append(inherited(), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", c.argv[0], err, diagnosis.printable())
	}
	if out.more {
		return "", fmt.Errorf("%s wrote more than %d bytes", c.argv[0], c.limit)
	}
	return out.kept.String(), nil
}

// inherited leaves out everything that could be a secret of the gateway's.
func inherited() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "SSH_AUTH_SOCK"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// head keeps the first bytes that are written to it. The buffer is not
// embedded: its ReadFrom would take everything.
type head struct {
	kept  bytes.Buffer
	limit int
	more  bool
}

func (h *head) Write(p []byte) (int, error) {
	keep := min(len(p), h.limit-h.kept.Len())
	h.more = h.more || keep < len(p)
	h.kept.Write(p[:keep])
	return len(p), nil
}

func (h *head) printable() string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(h.kept.String()))
}
