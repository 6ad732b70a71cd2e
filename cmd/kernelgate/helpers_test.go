package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// tarball is a tar.gz of a one-page site.
func tarball(t *testing.T, page string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	must(t, w.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: int64(len(page))}))
	_, err := w.Write([]byte(page))
	must(t, err)
	must(t, w.Close())
	must(t, z.Close())
	return out.String()
}

// guardPIDs are the child processes of serve.
func guardPIDs(t *testing.T, p *process) (pids []int) {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(p.cmd.Process.Pid)).Output()
	if err != nil {
		return nil
	}
	for _, field := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(field)
		must(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// guardPID waits for serve's guard.
func guardPID(t *testing.T, p *process) (pid int) {
	t.Helper()
	eventually(t, "a guard runs", func() bool {
		pids := guardPIDs(t, p)
		if len(pids) == 1 {
			pid = pids[0]
		}
		return len(pids) == 1
	})
	return pid
}

func killGuard(t *testing.T, p *process) {
	t.Helper()
	guard, err := os.FindProcess(guardPID(t, p))
	must(t, err)
	must(t, guard.Signal(syscall.SIGKILL))
}
