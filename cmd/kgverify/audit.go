package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
)

const auditUsage = `kgverify audit judges a whole audit log that kgctl audit export wrote.

usage: kgverify audit --root DIGEST [--checkpoint KEPT]... [--witness-policy FILE] [--max-age DURATION] [--json] FILE

  --root DIGEST           the pinned digest of the Kernel's first registry
                          document, sha256: and 64 hexadecimal digits
  --checkpoint KEPT       a file with a checkpoint that you kept: the log must
                          continue it. May be given more than once
  --witness-policy FILE   the witnesses that must have cosigned the checkpoint
                          (C2SP tlog-policy: witness, group and quorum lines)
  --max-age DURATION      the newest event may be this old, such as 2h: a gateway
                          that works logs one each hour, by default
  --json                  print the verdict as one JSON object
  FILE                    the exported log; - reads standard input

The first bad row is named. Without a kept checkpoint or a witness nothing
shows that events were not cut off, or the whole log replaced, by who has the
Kernel's audit key.
Exit codes: 0 valid, 7 not valid, 3 usage, 1 a file could not be read.

example: kgverify audit --root "$(cat root.txt)" --checkpoint march.txt audit.jsonl
`

// maxKept bounds the small files that are read whole.
const maxKept = 1 << 20

type auditOptions struct {
	root   envelope.Digest
	kept   []string // names of files
	policy string
	maxAge time.Duration
	asJSON bool
	file   string
}

func runAudit(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseAudit(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, auditUsage)
		return exitValid
	}
	if err != nil {
		fmt.Fprintf(stderr, "kgverify: %v\n\n%s", err, auditUsage)
		return exitUsage
	}
	trust, err := o.trust()
	if err != nil {
		fmt.Fprintf(stderr, "kgverify: %v\n", err)
		return exitNoRead
	}
	in := stdin
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			fmt.Fprintf(stderr, "kgverify: cannot read the log: %v\n", err)
			return exitNoRead
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	if isTerminal(stderr) {
		trust.Progress = func(done, size int64) { fmt.Fprintf(stderr, "\r%d of %d events ", done, size) }
	}
	v, verdictErr := history.VerifyFile(context.Background(), trust, in)
	if trust.Progress != nil {
		fmt.Fprint(stderr, "\r\033[K")
	}
	if verdictErr != nil && failure.ClassOf(verdictErr) == "" {
		fmt.Fprintf(stderr, "kgverify: cannot read the log: %v\n", verdictErr)
		return exitNoRead
	}
	if err := printReport(stdout, history.NewReport(v, verdictErr), o.asJSON); err != nil {
		fmt.Fprintf(stderr, "kgverify: %v\n", err)
		return exitNoRead
	}
	if verdictErr != nil {
		return exitInvalid
	}
	return exitValid
}

func parseAudit(args []string) (auditOptions, error) {
	var o auditOptions
	var root string
	f := flag.NewFlagSet("kgverify audit", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&root, "root", "", "")
	f.BoolVar(&o.asJSON, "json", false, "")
	f.DurationVar(&o.maxAge, "max-age", 0, "")
	f.Func("checkpoint", "", func(name string) error {
		o.kept = append(o.kept, name)
		return nil
	})
	f.Func("witness-policy", "", func(name string) error {
		if name == "" {
			// An unset variable of a script must not switch the check off.
			return errors.New("the name is empty")
		}
		o.policy = name
		return nil
	})
	files, err := parseFlags(f, args)
	if err != nil {
		return o, err
	}
	if root == "" {
		return o, errors.New("--root is missing: the digest that you pinned when the Kernel was set up")
	}
	if o.root, err = envelope.ParseDigest(root); err != nil {
		return o, fmt.Errorf("--root: %s", failure.DetailOf(err))
	}
	if o.maxAge < 0 {
		return o, errors.New("--max-age must be positive")
	}
	if len(files) != 1 {
		return o, fmt.Errorf("%d logs were named, one is needed", len(files))
	}
	o.file = files[0]
	return o, nil
}

// trust reads what the verifier brings along.
func (o auditOptions) trust() (history.Trust, error) {
	trust := history.Trust{Root: o.root}
	if o.maxAge > 0 {
		trust.Since = envelope.TimeOf(time.Now().Add(-o.maxAge))
	}
	for _, name := range o.kept {
		text, err := readSmall(name)
		if err != nil {
			return trust, err
		}
		trust.Kept = append(trust.Kept, text)
	}
	if o.policy == "" {
		return trust, nil
	}
	text, err := readSmall(o.policy)
	if err == nil {
		trust.Policy, err = auditlog.ParseWitnessPolicy(text)
	}
	return trust, err
}

func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err == nil && len(data) > maxKept {
		err = fmt.Errorf("%s has more than %d bytes", name, maxKept)
	}
	return string(data), err
}

func printReport(w io.Writer, r history.Report, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprint(w, r)
		return err
	}
	if err := json.MarshalWrite(w, r, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
