package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// app is what all commands share: where data and messages go, and the clock.
type app struct {
	in            *os.File
	out, messages *os.File
	format        string // table or json
	noInput, yes  bool
	now           func() time.Time
	connection    connection
	asks          func(ctx context.Context, question string) error // an agent's, instead of confirm's own
}

func run(ctx context.Context, args []string, in, out, messages *os.File) int {
	a := &app{in: in, out: out, messages: messages, now: time.Now}
	defer keepTerminal(in)()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(messages, "kgctl: %v%s\n", err, a.hint(err))
	}
	return exitCode(err)
}

// hint is what to do about a refusal that the gateway words for every client.
func (a *app) hint(err error) string {
	var refused *client.Error
	switch {
	case !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized:
		return ""
	case a.connection.tokenFile == "":
		return "\nName the file that holds your token by --token-file, KGCTL_TOKEN_FILE or in " + settingsName + "; kernelgate token create makes one."
	}
	return "\nThe token was read from " + a.connection.tokenFile + "; kernelgate token create makes a new one."
}

func (a *app) root() *cobra.Command {
	root := group("kgctl", "Propose, test, approve and follow upgrades of a Kernel", connectHelp+"\n\n"+exitHelp)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(a.out)
	root.SetErr(a.messages)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&a.format, "output", "o", "table", "form of the output: table or json")
	root.PersistentFlags().BoolVar(&a.noInput, "no-input", false, "never ask; fail where an answer is needed")
	root.PersistentFlags().BoolVarP(&a.yes, "yes", "y", false, "sign without being asked, after everything is shown and checked")
	a.connection.flags(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.format != "table" && a.format != "json" {
			return usagef("--output is table or json, not %q", a.format)
		}
		f, err := readSettings()
		if err != nil {
			return err
		}
		a.connection.complete(f)
		return f.setKey(cmd)
	}
	root.AddCommand(a.statusCommand(), a.upgradeCommand(), a.artifactCommand(), a.testCommand(), a.approveCommand(), a.rejectCommand(),
		a.requestTestsCommand(), a.rollbackCommand(), a.bundleCommand(), a.policyCommand(), a.emergencyCommand(), a.auditCommand(),
		a.recordCommand(), a.agentCommand(), a.manCommand())
	root.AddCommand(a.keyCommand(), a.registryCommand(), a.manifestCommand(), a.signCommand(), a.fingerprintCommand())
	return root
}

// group is a command that only has subcommands.
func group(use, short, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: short + ".\n\n" + long,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%q is no command of %s; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		}}
}

// noArgs and oneFile are cobra's validators with the exit code of usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes one FILE; see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

// oneUpgrade is the validator of commands about one upgrade.
func oneUpgrade(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes the ID of one upgrade; kgctl upgrade list shows them", cmd.CommandPath())
	}
	return parseUUID(args[0], new(envelope.UUID))
}

func parseUUID(text string, into *envelope.UUID) error {
	if err := into.UnmarshalText([]byte(text)); err != nil {
		return usagef("%.60q is no upgrade's ID: it is a UUID in lower case", text)
	}
	return nil
}

// need refuses a command line that lacks one of the flags.
func need(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if !cmd.Flags().Changed(name) {
			return usagef("%s needs --%s; see %s --help", cmd.CommandPath(), name, cmd.CommandPath())
		}
	}
	return nil
}

func (a *app) say(format string, args ...any) { fmt.Fprintf(a.messages, format+"\n", args...) }

// show writes value as JSON, or the rows as a table.
func (a *app) show(value any, rows [][]string) error {
	if a.format == "json" {
		if err := json.MarshalWrite(a.out, value, jsontext.WithIndent("  ")); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out)
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// readFile reads at most limit bytes: what is longer is refused.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than the %d bytes that are read", path, limit)
	}
	return data, nil
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("%w (files are never overwritten)", err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (a *app) time() envelope.Time { return envelope.TimeOf(a.now()) }
