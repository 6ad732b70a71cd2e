package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestHelpHasExamples(t *testing.T) {
	for _, words := range [][]string{{"init"}, {"serve"}, {"guard"}, {"guard", "rebuild"}, {"token", "create"}, {"config", "check"}, {"version"}} {
		code, out, _ := call(t.Context(), append(words, "--help")...)
		if code != 0 || !strings.Contains(out, "kernelgate "+strings.Join(words, " ")) || !strings.Contains(out, "Examples:") {
			t.Errorf("%v: %d\n%s", words, code, out)
		}
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := call(t.Context(), "version")
	if code != 0 || !strings.HasPrefix(out, "kernelgate ") {
		t.Errorf("%d %s", code, out)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"serve", "now"}, {"serve", "--port", "1"}, {"token", "create", "--colour"},
		{"token", "create", "--name", "ryan"}, {"token", "make"}, {"config", "look"}, {"look"}, {"invite", "--person", "ryan"}, {"version", "now"}} {
		if code, _, stderr := call(t.Context(), args...); code != exitUsage || stderr == "" {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
	}
	if code, _, _ := call(t.Context(), "serve", "--config", filepath.Join(t.TempDir(), "none.yaml")); code != exitFailure {
		t.Errorf("a missing file: %d", code)
	}
}

func TestTokenCreate(t *testing.T) {
	c, err := load(t, "")
	must(t, err)
	args := []string{"token", "create", "--config", c.file, "--name", "ryan"}
	code, out, stderr := call(t.Context(), append(args, "--role", "approver")...)
	if code != 0 || !regexp.MustCompile(`^kgt_[A-Za-z0-9_-]{43}\n$`).MatchString(out) {
		t.Fatalf("%d %q %s", code, out, stderr)
	}
	data, err := readBounded(c.tokens(), 1<<20)
	must(t, err)
	if strings.Contains(string(data), strings.TrimSpace(out)) || !strings.Contains(string(data), "ryan") {
		t.Errorf("the file holds %s", data)
	}
	if code, out, _ := call(t.Context(), append(args, "--role", "king")...); code == 0 || out != "" {
		t.Error("an unknown role is taken")
	}
}
