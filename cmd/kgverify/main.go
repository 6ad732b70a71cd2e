// Command kgverify verifies an upgrade's bundle file, or a whole audit log,
// offline: with no network, no database and no clock, from a pinned root digest
// alone (PROTOCOL sections 9 and 10).
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The exit codes of PROTOCOL section 9.
const (
	exitValid   = 0
	exitNoRead  = 1
	exitUsage   = 3
	exitInvalid = 7
)

const usage = `kgverify says whether an upgrade was authorised, offline and years later.

usage: kgverify --root DIGEST [--artifact FILE] [--no-audit] [--json] FILE
       kgverify audit ...   judge a whole audit log; see kgverify audit --help

  --root DIGEST     the pinned digest of the Kernel's first registry document,
                    sha256: and 64 hexadecimal digits
  --artifact FILE   also check that FILE is the artifact that was approved
  --no-audit        do not ask for, nor look at, the proof that the audit log
                    knew of the decision
  --json            print the verdict as one JSON object
  FILE              the bundle file; - reads standard input

"Valid" means authorised, not deployed.
Exit codes: 0 valid, 7 not valid, 3 usage, 1 a file could not be read.

example: kgverify --root "$(cat demo/root.txt)" demo/bundles/upgrade-42.bundle.json
`

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

type options struct {
	root     envelope.Digest
	artifact string
	noAudit  bool
	asJSON   bool
	file     string
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "audit" {
		return runAudit(args[1:], stdin, stdout, stderr)
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitValid
	}
	if err != nil {
		fmt.Fprintf(stderr, "kgverify: %v\n\n%s", err, usage)
		return exitUsage
	}
	data, err := read(o.file, stdin)
	if err != nil {
		fmt.Fprintf(stderr, "kgverify: cannot read the bundle: %v\n", err)
		return exitNoRead
	}
	verdict, err := upgrade.VerifyFile(data, o.root, !o.noAudit)
	if err == nil && o.artifact != "" {
		sum, readErr := hash(o.artifact)
		if readErr != nil {
			fmt.Fprintf(stderr, "kgverify: cannot read the artifact: %v\n", readErr)
			return exitNoRead
		}
		if sum != verdict.Manifest.PatchHash {
			err = failure.New(failure.ArtifactMismatch, "the artifact is %s, but %s was approved", sum, verdict.Manifest.PatchHash)
		}
	}
	if err := report(stdout, o, verdict, err); err != nil {
		fmt.Fprintf(stderr, "kgverify: %v\n", err)
		return exitNoRead
	}
	if err != nil {
		return exitInvalid
	}
	return exitValid
}

func parse(args []string) (options, error) {
	var o options
	var root string
	f := flag.NewFlagSet("kgverify", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&root, "root", "", "")
	f.Func("artifact", "", func(name string) error {
		if name == "" {
			// An unset variable of a script must not switch the check off.
			return errors.New("the name is empty")
		}
		if o.artifact != "" {
			// Only one of two would be checked.
			return errors.New("it is given twice")
		}
		o.artifact = name
		return nil
	})
	f.BoolVar(&o.noAudit, "no-audit", false, "")
	f.BoolVar(&o.asJSON, "json", false, "")
	files, err := parseFlags(f, args)
	if err != nil {
		return o, err
	}
	if root == "" {
		return o, errors.New("--root is missing: the digest that you pinned when the Kernel was set up")
	}
	digest, err := envelope.ParseDigest(root)
	if err != nil {
		return o, fmt.Errorf("--root: %s", failure.DetailOf(err))
	}
	if len(files) != 1 {
		return o, fmt.Errorf("%d bundle files were named, one is needed", len(files))
	}
	o.root, o.file = digest, files[0]
	return o, nil
}

// parseFlags parses flags, which may stand behind the files too, but not behind
// "--". It returns the files.
func parseFlags(f *flag.FlagSet, args []string) ([]string, error) {
	var files []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, files = args[:i], slices.Clone(args[i+1:])
	}
	for rest := args; ; {
		if err := f.Parse(rest); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			return files, nil
		}
		files, rest = append(files, f.Arg(0)), f.Args()[1:]
	}
}

// read reads at most one byte more than a bundle may have, so that what is too
// long is refused as such.
func read(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(stdin, upgrade.MaxBundle+1))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, upgrade.MaxBundle+1))
}

func hash(name string) (envelope.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return envelope.Digest{}, err
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return envelope.Digest{}, err
	}
	return envelope.Digest(h.Sum(nil)), nil
}

// answer is the JSON form of a verdict. Class and Detail are empty when valid.
type answer struct {
	Valid     bool          `json:"valid"`
	Class     failure.Class `json:"class"`
	Detail    string        `json:"detail"`
	KernelID  envelope.ID   `json:"kernelId,omitzero"`
	UpgradeID envelope.UUID `json:"upgradeId,omitzero"`
	Case      upgrade.Case  `json:"case,omitzero"`
	Type      upgrade.Type  `json:"type,omitzero"`
	Target    envelope.ID   `json:"target,omitzero"`
	PatchHash string        `json:"patchHash,omitzero"`
	Approvers []envelope.ID `json:"approvers,omitzero"`
	DecidedAt string        `json:"decidedAt,omitzero"`
	Ratified  []envelope.ID `json:"ratifiedBy,omitzero"`
	Audit     string        `json:"audit,omitzero"`
}

func report(w io.Writer, o options, v *upgrade.FileVerdict, verdictErr error) error {
	a := answer{Valid: verdictErr == nil}
	if verdictErr != nil {
		a.Class, a.Detail = failure.ClassOf(verdictErr), failure.DetailOf(verdictErr)
	} else {
		fill(&a, o, v)
	}
	if o.asJSON {
		if err := json.MarshalWrite(w, a, jsontext.WithIndent("  ")); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w)
		return err
	}
	if !a.Valid {
		_, err := fmt.Fprintf(w, "NOT VALID  %s: %s\n", a.Class, a.Detail)
		return err
	}
	_, err := fmt.Fprintf(w, "VALID  upgrade %s (%s, %s) of %s\n  patch      %s\n  approvers  %v\n  decided    %s\n  audit      %s\n",
		a.UpgradeID, a.Type, a.Case, a.Target, a.PatchHash, a.Approvers, a.DecidedAt, a.Audit)
	return err
}

func fill(a *answer, o options, v *upgrade.FileVerdict) {
	m := v.Manifest
	a.KernelID, a.UpgradeID, a.Case, a.Type, a.Target = m.KernelID, m.UpgradeID, v.Case, m.Type, m.Target.Name
	a.PatchHash, a.Approvers, a.DecidedAt = m.PatchHash.String(), v.Approvers, v.DecidedAt.String()
	if v.Ratification != nil {
		a.Ratified = v.Ratification.Approvers
	}
	a.Audit = "not looked at"
	if !o.noAudit {
		a.Audit = fmt.Sprintf("sealed in a log of %d events", v.LogSize)
	}
}
