package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Exec deploys by a program of the operator's, named in the configuration and
// never by a manifest. It is started with the configured arguments and one
// more, "live" or "apply"; what it is about stands as JSON on its standard input:
//
//	live   {"target": ID}. It writes the live patchHash, or "none", on one line.
//	apply  {"artifact": FILE, "base": REVISION, "patch": DIGEST, "record": base64 of
//	       the AppliedUpgradeRecord's envelope, "target": the manifest's target,
//	       "upgradeId": UUID}. FILE holds the verified bytes while it runs.
//
// Exit status 0 is success. apply must be idempotent, and must change nothing
// where neither base nor patch is live; what it did is asked by live, before
// and after. After a gateway's death its program may still be at work when the
// next one asks. It gets no variables but PATH, HOME, TMPDIR, LANG, SSH_AUTH_SOCK.
type Exec struct {
	argv     []string
	timeout  time.Duration
	maxBytes int64
	mu       sync.Mutex // one apply at a time
}

var _ workflow.Deployer = (*Exec)(nil)

// NewExec takes the program's absolute path with its fixed arguments, the time
// that one run of it may take, and the most bytes that an artifact may have.
func NewExec(argv []string, timeout time.Duration, maxBytes int64) (*Exec, error) {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return nil, fmt.Errorf("exec target: the program %q is not an absolute path", argv)
	}
	if timeout <= 0 || maxBytes <= 0 {
		return nil, errors.New("exec target: set a positive timeout and size limit")
	}
	return &Exec{argv: argv, timeout: timeout, maxBytes: maxBytes}, nil
}

// Live runs the program with "live".
func (e *Exec) Live(ctx context.Context, target envelope.ID) (upgrade.Revision, error) {
	out, err := e.run(ctx, "live", map[string]envelope.ID{"target": target})
	if err != nil {
		return "", err
	}
	var live upgrade.Revision
	if err := live.UnmarshalText([]byte(strings.TrimSuffix(out, "\n"))); err != nil {
		return "", fmt.Errorf("exec: what %s says is live: %w", e.argv[0], err)
	}
	return live, nil
}

// Apply runs the program with "apply", between two questions what is live.
func (e *Exec) Apply(ctx context.Context, change workflow.Change) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if done, err := e.check(ctx, change); done || err != nil {
		return err
	}
	if err := e.apply(ctx, change); err != nil {
		return err
	}
	done, err := e.check(ctx, change)
	if err == nil && !done {
		return fmt.Errorf("exec: %s succeeded, and %s is live still", e.argv[0], change.Base)
	}
	return err
}

func (e *Exec) check(ctx context.Context, change workflow.Change) (bool, error) {
	live, err := e.Live(ctx, change.Target.Name)
	if err != nil {
		return false, err
	}
	return step(live, change)
}

func (e *Exec) apply(ctx context.Context, change workflow.Change) (err error) {
	file, err := os.CreateTemp("", "kernelgate-artifact-")
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if _, err := spool(ctx, change, file, e.maxBytes); err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	_, err = e.run(ctx, "apply", struct {
		Artifact  string           `json:"artifact"`
		Base      upgrade.Revision `json:"base"`
		Patch     envelope.Digest  `json:"patch"`
		Record    []byte           `json:"record"`
		Target    upgrade.Target   `json:"target"`
		UpgradeID envelope.UUID    `json:"upgradeId"`
	}{file.Name(), change.Base, change.Patch, change.Record, change.Target, change.UpgradeID})
	return err
}

func (e *Exec) run(ctx context.Context, verb string, about any) (string, error) {
	input, err := json.Marshal(about)
	if err != nil {
		return "", fmt.Errorf("exec: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	argv := append(append([]string{}, e.argv...), verb)
	out, err := command{argv: argv, stdin: bytes.NewReader(input), limit: 64 << 10}.run(ctx)
	if err != nil {
		return "", fmt.Errorf("exec: %s: %w", verb, err)
	}
	return out, nil
}
