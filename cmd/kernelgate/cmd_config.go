package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "The configuration", a.command("check", "Say whether the configuration is one to run with",
		`check reads the file and the environment's overrides as serve does, and loads
the policy. It opens no key, no database and no socket.`,
		`  kernelgate config check --config kernelgate.yaml`,
		func(_ context.Context, c *Config) error {
			_, err := openPolicy(c.Policy)
			if err := errors.Join(c.requireServe(), err); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s is good: %d targets, data in %s\n", c.file, len(c.Targets), c.DataDir)
			return err
		}))
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  kernelgate version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a.obeyed = true
			_, err := fmt.Fprintf(a.stdout, "kernelgate %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version is what the build stamped: a tag, or the commit.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
