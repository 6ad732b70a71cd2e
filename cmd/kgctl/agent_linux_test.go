package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/kernelgate/kernelgate/workflow/client"
)

// terminal is a pseudo-terminal: what a person types, and what is shown there.
type terminal struct {
	person, program *os.File

	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal() (*terminal, error) {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(person.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		return nil, errors.Join(err, person.Close())
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Join(err, person.Close())
	}
	t := &terminal{person: person, program: program}
	go func() {
		for chunk := make([]byte, 4096); ; {
			n, err := person.Read(chunk)
			t.mu.Lock()
			t.shown.Write(chunk[:n])
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return t, nil
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

func (t *terminal) close() { _ = errors.Join(t.person.Close(), t.program.Close()) }

// desk is a person's machine in a transcript: kgctl agent on a terminal.
type desk struct {
	terminal *terminal
	cmd      *exec.Cmd
	seen     int // bytes of what is shown that were waited for
}

// agentCommands are, for transcripts: "agent start KEY", "agent sees TEXT", "agent types TEXT",
// "agent ends", and "page asks ID DECISION [REASON]", "page sees ID STATE", "page withdraws ID".
func agentCommands() map[string]func(*testscript.TestScript, bool, []string) {
	d := &desk{}
	return map[string]func(*testscript.TestScript, bool, []string){"agent": d.command, "page": page}
}

func (d *desk) command(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "start":
		d.start(ts, args[1])
	case "types":
		_, err := d.terminal.person.WriteString(args[1] + "\n")
		ts.Check(err)
	case "sees":
		d.sees(ts, args[1])
	case "ends":
		ts.Check(d.cmd.Process.Signal(syscall.SIGINT))
		_ = d.cmd.Wait() // it was interrupted
		d.terminal.close()
	default:
		ts.Fatalf("agent %v", args)
	}
}

func (d *desk) start(ts *testscript.TestScript, key string) {
	t, err := newTerminal()
	ts.Check(err)
	kgctl, err := exec.LookPath("kgctl")
	ts.Check(err)
	d.terminal, d.seen = t, 0
	d.cmd = exec.Command(kgctl, "agent", "--key", key)
	d.cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"PATH", "SOFTHSM2_CONF", "KGCTL_SERVER", "KGCTL_ROOT", "KGCTL_TOKEN_FILE", "XDG_CONFIG_HOME", "TZ", "TMPDIR"} {
		d.cmd.Env = append(d.cmd.Env, name+"="+ts.Getenv(name))
	}
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = t.program, t.program, t.program
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(d.cmd.Start())
	ts.Defer(func() { _ = d.cmd.Process.Kill() })
}

func (d *desk) sees(ts *testscript.TestScript, text string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		all := d.terminal.text()
		if i := strings.Index(all[d.seen:], text); i >= 0 {
			d.seen += i + len(text)
			return
		}
	}
	ts.Fatalf("the terminal does not show %q after its first %d bytes:\n%s", text, d.seen, d.terminal.text())
}

// page does what CommandPad does, by the token $KGCTL_TOKEN_FILE.
func page(ts *testscript.TestScript, _ bool, args []string) {
	token, err := os.ReadFile(ts.Getenv("KGCTL_TOKEN_FILE"))
	ts.Check(err)
	c, err := client.New(ts.Getenv("KGCTL_SERVER"), strings.TrimSpace(string(token)), nil)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id := strings.TrimSpace(ts.ReadFile(args[1]))
	switch args[0] {
	case "asks":
		wish := client.NewSigningRequest{UpgradeId: id, Decision: client.SigningDecision(args[2])}
		if len(args) > 3 {
			wish.Reason = &args[3]
		}
		_, err := c.AskSigning(ctx, wish)
		ts.Check(err)
	case "withdraws":
		r := request(ts, ctx, c, id)
		_, err := c.ReportSigning(ctx, r.Id, client.SigningWithdrawn, "")
		ts.Check(err)
	case "sees":
		for request(ts, ctx, c, id).State != client.SigningState(args[2]) {
			if ctx.Err() != nil {
				ts.Fatalf("the request is %+v, not %s", request(ts, ctx, c, id), args[2])
			}
			time.Sleep(20 * time.Millisecond)
		}
		if r := request(ts, ctx, c, id); len(args) > 3 && (r.Detail == nil || !strings.Contains(*r.Detail, args[3])) {
			ts.Fatalf("the page is told %+v", r)
		}
	default:
		ts.Fatalf("page %v", args)
	}
}

// request is the newest about an upgrade.
func request(ts *testscript.TestScript, ctx context.Context, c *client.Client, upgrade string) client.SigningRequest {
	list, err := c.SigningRequests(ctx)
	ts.Check(err)
	for _, r := range list.Requests {
		if r.UpgradeId == upgrade {
			return r
		}
	}
	ts.Fatalf("no request about %s", filepath.Base(upgrade))
	return client.SigningRequest{}
}
