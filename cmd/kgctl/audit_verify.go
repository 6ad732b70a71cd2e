package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
)

// auditTrust are the names of files that a verifier brings along.
type auditTrust struct {
	kept   []string
	policy string
	maxAge time.Duration
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var t auditTrust
	c := &cobra.Command{Use: "verify [FILE]", Short: "Judge the whole log: an exported file's, or the gateway's",
		Long: `Judge the whole log: each event's form, place, time and signature, the
delegations of event keys, and the tree under the signed checkpoint. The first
bad event is named. FILE is an export; without it the gateway's log is read.

Without a kept checkpoint or a witness nothing shows that events were not cut
off, or the whole log replaced, by who has the Kernel's audit key.`,
		Example: `  kgctl audit verify --checkpoint march.txt
  kgctl audit verify --root "$(cat root.txt)" --witness-policy witnesses.txt audit.jsonl`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one FILE at most", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("witness-policy") && t.policy == "" {
				// An unset variable of a script must not switch the check off.
				return usagef("--witness-policy: the name is empty")
			}
			if t.maxAge < 0 {
				return usagef("--max-age is not negative")
			}
			verdict, err := a.verifyLog(cmd.Context(), t, args)
			if err != nil && failure.ClassOf(err) == "" {
				return err
			}
			if reportErr := a.report(history.NewReport(verdict, err)); reportErr != nil {
				return reportErr
			}
			return err
		}}
	c.Flags().StringArrayVar(&t.kept, "checkpoint", nil, "file with a checkpoint that you kept; may be given more than once")
	c.Flags().DurationVar(&t.maxAge, "max-age", 0, "refuse a log whose newest event is older, such as 2h: a gateway that works logs one each hour, by default")
	c.Flags().StringVar(&t.policy, "witness-policy", "", "file that names the witnesses who must have cosigned (C2SP tlog-policy)")
	return c
}

func (a *app) verifyLog(ctx context.Context, t auditTrust, files []string) (*history.Verdict, error) {
	trust, err := t.read()
	if err != nil {
		return nil, err
	}
	if isTerminal(a.messages) {
		trust.Progress = func(done, size int64) { fmt.Fprintf(a.messages, "\r%d of %d events ", done, size) }
		defer fmt.Fprint(a.messages, "\r\033[K")
	}
	if len(files) == 0 {
		return a.verifyServed(ctx, trust)
	}
	if trust.Root, err = a.logRoot(); err != nil {
		return nil, err
	}
	f, err := os.Open(files[0])
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return history.VerifyFile(ctx, trust, f)
}

func (a *app) verifyServed(ctx context.Context, trust history.Trust) (*history.Verdict, error) {
	s, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	trust.Root = s.root
	claim, size, err := s.claim(ctx)
	if err != nil {
		return nil, err
	}
	return history.Verify(ctx, trust, claim, s.leaves(ctx, size))
}

func (t auditTrust) read() (history.Trust, error) {
	var trust history.Trust
	if t.maxAge > 0 {
		trust.Since = envelope.TimeOf(time.Now().Add(-t.maxAge))
	}
	for _, name := range t.kept {
		text, err := readFile(name, maxKept)
		if err != nil {
			return trust, err
		}
		trust.Kept = append(trust.Kept, string(text))
	}
	if t.policy == "" {
		return trust, nil
	}
	text, err := readFile(t.policy, maxKept)
	if err == nil {
		trust.Policy, err = auditlog.ParseWitnessPolicy(string(text))
	}
	return trust, err
}

func (a *app) report(r history.Report) error {
	if a.format == "json" {
		if err := json.MarshalWrite(a.out, r, jsontext.WithIndent("  ")); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out)
		return err
	}
	_, err := fmt.Fprint(a.out, r)
	return err
}
