package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// run runs one of the commands and returns what it wrote to standard output.
func (d *demo) run(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, name), args...)
	cmd.Env = append(os.Environ(), append(env, d.hsm.Environ())...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes(), nil
}

// kgctl runs kgctl as a person, with that person's key and API token, and shows
// the command as the person would type it.
func (d *demo) kgctl(ctx context.Context, who string, args ...string) ([]byte, error) {
	shown := append([]string{"$ kgctl"}, args...)
	for i, arg := range shown {
		if arg == d.keys[who] {
			shown[i] = `"$(cat people/` + who + `.uri)"`
		} else if strings.ContainsAny(arg, " ") && i > 0 {
			shown[i] = `"` + arg + `"`
		}
	}
	fmt.Printf("      %s\n", strings.ReplaceAll(strings.Join(shown, " "), d.dir+"/", ""))
	return d.run(ctx, d.environment(who), "kgctl", append(args, "--yes", "--no-input", "-o", "json")...)
}

// environment is what kgctl reads of a person.
func (d *demo) environment(who string) []string {
	return []string{
		"KGCTL_SERVER=" + d.url, "KGCTL_ROOT=" + d.root, "KGCTL_TOKEN_FILE=" + d.path("people", who+".token"),
		"XDG_CONFIG_HOME=" + d.path("people", who+".config"), "XDG_STATE_HOME=" + d.path("people", who+".config"),
	}
}
