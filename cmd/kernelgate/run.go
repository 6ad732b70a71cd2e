package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes, beside the guard's own (guard.ExitStuck, guard.ExitPIN).
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 3
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// app is one call of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	file           string // --config
	obeyed         bool   // the command line was one to obey
}

// run is the whole command, for main and for tests. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "kernelgate:", err)
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if !a.obeyed {
		return exitUsage
	}
	return exitFailure
}

func usage(err error) error { return &exitError{exitUsage, err} }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kernelgate",
		Short: "The signing gateway and its guard",
		Long: `kernelgate collects what people sign about an upgrade, has the guard judge it
and sign for the Kernel, and applies the change.

A new Kernel:
  1. kgctl registry propose, sign    the five approvers make the key registry
  2. kernelgate init                 the guard accepts it, the log begins
  3. kernelgate token create         tokens for the people who use the API
  4. kernelgate invite               links by which people enrol for CommandPad
  5. kernelgate serve                the gateway, with the guard beside it

Exit codes: 0 ok, 1 failure, 3 usage; of the guard also 75 a device does not
return from a call, 77 a PIN was refused.`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; see: %s --help", err, c.CommandPath()))
	})
	root.AddCommand(a.initCommand(), a.serveCommand(), a.guardCommand(), a.tokenCommand(), a.inviteCommand(), a.configCommand(), a.migrateCommand(), a.backupCommand(), a.restoreCommand(), a.versionCommand())
	return root
}

// group is a command that has others below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("%q is no command of %s; see: %s --help", args[0], c.CommandPath(), c.CommandPath()))
			}
			return c.Help()
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

// command is a command that reads the configuration and takes no arguments.
func (a *app) command(use, short, long, example string, f func(ctx context.Context, c *Config) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("%s takes no arguments, not %q", c.CommandPath(), args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.obeyed = true
			c, err := loadConfig(a.file)
			if err != nil {
				return err
			}
			return f(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&a.file, "config", "kernelgate.yaml", "the configuration file")
	return cmd
}
