// Package witness has the log's checkpoints cosigned by witnesses, by C2SP
// tlog-witness. A witness remembers the last checkpoint that it saw of a log
// and cosigns only one that continues it, so that a Kernel cannot show one
// history here and another there, and a log that was restored from a backup is
// found out.
package witness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// timeout bounds one witness's answer; the others' cosignatures do not wait longer.
const timeout = 10 * time.Second

// Witnesses are those of one policy. They are safe for concurrent use.
type Witnesses struct {
	policy *auditlog.WitnessPolicy
	store  workflow.Store
	http   *http.Client

	mu    sync.Mutex
	known map[string]int64 // the size that each has seen last, as far as is known here
}

// New is the witnesses of a policy for the log in store. Each needs a URL in
// the policy: https, or http on this machine. hc nil: a client of its own.
func New(policy *auditlog.WitnessPolicy, store workflow.Store, hc *http.Client) (*Witnesses, error) {
	for _, w := range policy.Witnesses() {
		if err := checkURL(w.URL); err != nil {
			return nil, fmt.Errorf("witness %s: %w", w.Name, err)
		}
	}
	own := http.Client{Timeout: timeout}
	if hc != nil {
		own = *hc
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Witnesses{policy: policy, store: store, http: &own, known: map[string]int64{}}, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return errors.New("the policy gives no URL at which it takes checkpoints")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%s is not https; plain http is for this machine only", u.Redacted())
	}
	return nil
}

// Cosign has the newest checkpoint of the store cosigned, and stores it again
// with the cosignatures. It returns nil once the policy is met; until then the
// checkpoint is sealed and not witnessed, and asking again is what helps. The
// failure class is audit_fork where a witness has seen a log that this one does
// not continue: stop then, and look why. Any other error has no class.
func (w *Witnesses) Cosign(ctx context.Context) error {
	var note string
	var size int64
	err := w.store.View(ctx, func(r workflow.Reader) (err error) {
		note, size, err = r.Checkpoint()
		return err
	})
	if errors.Is(err, workflow.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := w.policy.Check(note); err == nil {
		return nil
	}
	cosigned, askErr := w.ask(ctx, note, size)
	_, unmet := w.policy.Check(cosigned)
	if unmet != nil {
		return errors.Join(fork(askErr), fmt.Errorf("checkpoint of %d events: %s: %w", size, failure.DetailOf(unmet), errOr(askErr, unmet)))
	}
	if err := w.store.Update(ctx, func(tx workflow.Tx) error { return tx.PutCheckpoint(cosigned, size) }); err != nil {
		return err
	}
	// Enough cosigned; but one who saw another history is never outvoted.
	return fork(askErr)
}

// ask asks all at once and adds the lines of those that cosign.
func (w *Witnesses) ask(ctx context.Context, note string, size int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	witnesses := w.policy.Witnesses()
	lines, errs := make([]string, len(witnesses)), make([]error, len(witnesses))
	var group sync.WaitGroup
	for i, one := range witnesses {
		group.Go(func() {
			if lines[i], errs[i] = w.askOne(ctx, one, note, size); errs[i] != nil {
				errs[i] = fmt.Errorf("witness %s: %w", one.Name, errs[i])
			}
		})
	}
	group.Wait()
	for _, line := range lines {
		note += line
	}
	return note, errors.Join(errs...)
}

// fork is the witnesses' errors where one of them is a fork, else nil.
func fork(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, one := range joined.Unwrap() {
		if failure.ClassOf(one) == failure.AuditFork {
			return one
		}
	}
	return nil
}

// errOr keeps a fork's class from being told of what is only unmet.
func errOr(err, other error) error {
	if err != nil {
		return plain{err}
	}
	return plain{other}
}

// plain is an error of which only the text counts.
type plain struct{ err error }

func (p plain) Error() string { return p.err.Error() }
