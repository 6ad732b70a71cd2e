package pkcs11_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/test/faults"
)

// childVariable makes the test binary a process that only signs.
const childVariable = "KERNELGATE_TEST_SIGN_WITH"

// exitStuck is how that process ends when a call does not return.
const exitStuck = 75

func TestMain(m *testing.M) {
	if uri := os.Getenv(childVariable); uri != "" {
		os.Exit(signForEver(uri))
	}
	os.Exit(m.Run())
}

// signForEver is what the guard's process is to a module: it signs, one line a
// signature, until a call is stuck.
func signForEver(uri string) int {
	u, err := pkcs11.ParseURI(uri)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := pkcs11.Open(context.Background(), u, pkcs11.Options{
		Inline: true, CallTimeout: time.Second, OnStuck: func() { os.Exit(exitStuck) }})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for {
		if _, err := s.Sign(context.Background(), []byte("m")); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("signed")
		time.Sleep(time.Millisecond)
	}
}

type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func (r *rig) start(uri string) *child {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r.t.Cleanup(cancel)
	c := &child{cmd: exec.CommandContext(ctx, os.Args[0])}
	c.cmd.Env = append(os.Environ(), childVariable+"="+uri)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if !c.lines.Scan() || c.lines.Text() != "signed" {
		r.t.Fatalf("the process does not sign: %s", c.lines.Text())
	}
	return c
}

// end reads on until the process ends, and says how it did.
func (c *child) end() *os.ProcessState {
	for c.lines.Scan() {
	}
	_ = c.cmd.Wait() // its state says it all
	return c.cmd.ProcessState
}

// TestProcessIsGivenUpAndReplaced: a module that crashes or hangs takes its
// process with it; the next process signs as if nothing had been.
func TestProcessIsGivenUpAndReplaced(t *testing.T) {
	r := newRig(t, signer.ECDSAP256SHA256)
	uri := r.key.URI.Text()
	for _, c := range []struct {
		name   string
		action faults.Action
		ended  func(syscall.WaitStatus) bool
	}{
		{"crash", faults.Crash, func(w syscall.WaitStatus) bool { return w.Signaled() || w.ExitStatus() == 2 }},
		{"hang", faults.Hang, func(w syscall.WaitStatus) bool { return w.ExitStatus() == exitStuck }},
	} {
		first := r.start(uri)
		start := time.Now()
		r.fail("C_Sign", faults.Rule{Times: 1, Action: c.action})
		state := first.end()
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || !c.ended(status) {
			t.Errorf("%s: the process ended by %v", c.name, state)
		}
		down := time.Since(start)
		second := r.start(uri)
		t.Logf("| %s | the process ends after %d ms | its successor signs %d ms later |",
			c.name, down.Milliseconds(), (time.Since(start) - down).Milliseconds())
		if down > 10*time.Second {
			t.Errorf("%s: the process was given up only after %v", c.name, down)
		}
		if err := second.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		second.end()
		r.fail("C_Sign", faults.Rule{})
	}
}
