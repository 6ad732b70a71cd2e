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

// kgctl shows the command as a person would type it, and runs it with that
// person's key and API token.
func (d *demo) kgctl(ctx context.Context, who string, args ...string) ([]byte, error) {
	d.show(append([]string{"kgctl"}, args...)...)
	return d.quietly(ctx, who, args...)
}

// quietly runs kgctl without showing it.
func (d *demo) quietly(ctx context.Context, who string, args ...string) ([]byte, error) {
	return d.run(ctx, d.environment(who), "kgctl", append(args, "--yes", "--no-input", "-o", "json")...)
}

// refused runs a kgctl command that must be refused for that reason, and shows what it said.
func (d *demo) refused(ctx context.Context, reason, who string, args ...string) error {
	_, err := d.kgctl(ctx, who, args...)
	if err == nil {
		return fmt.Errorf("kgctl %s was not refused", strings.Join(args, " "))
	}
	for line := range strings.Lines(err.Error()) {
		if said, found := strings.CutPrefix(line, "kgctl: "+reason); found {
			fmt.Print("        " + reason + said)
			return nil
		}
	}
	return fmt.Errorf("kgctl was not refused as %s: %w", reason, err)
}

// environment is what kgctl reads of a person.
func (d *demo) environment(who string) []string {
	return []string{
		"KGCTL_SERVER=" + d.url, "KGCTL_ROOT=" + d.root, "KGCTL_TOKEN_FILE=" + d.path("people", who+".token"),
		"XDG_CONFIG_HOME=" + d.path("people", who+".config"), "XDG_STATE_HOME=" + d.path("people", who+".config"),
	}
}

// width of what is printed, in characters.
const width = 118

// show prints a command as a person would type it in the demo's directory. A
// flag stays on the line of its value.
func (d *demo) show(argv ...string) {
	var words []string
	for i := 0; i < len(argv); i++ {
		word := d.asTyped(argv[i])
		if strings.HasPrefix(word, "-") && i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "-") {
			i++
			word += " " + d.asTyped(argv[i])
		}
		words = append(words, word)
	}
	fmt.Println(wrapped(words, "      $ ", ` \`, "          "))
}

// wrapped is the words in lines of at most width, where they allow it.
func wrapped(words []string, first, end, indent string) string {
	var out strings.Builder
	line := first
	for i, word := range words {
		switch {
		case i == 0:
			line += word
		case len(line)+1+len(word)+len(end) > width:
			out.WriteString(line + end + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	return out.String() + line
}

func (d *demo) asTyped(arg string) string {
	for who, uri := range d.keys {
		if arg == uri {
			return `"$(cat people/` + who + `.uri)"`
		}
	}
	if arg == d.root {
		return `"$(cat root.txt)"`
	}
	arg = strings.ReplaceAll(arg, d.dir+"/", "")
	if strings.Contains(arg, " ") {
		return `"` + arg + `"`
	}
	return arg
}
