package workflow

import (
	"context"
	"errors"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// errLook says that a record is to be taken the long way, which looks first,
// asks the policy and says exactly what is wrong.
var errLook = errors.New("look first")

// submitAtOnce takes a person's record in one transaction, where all is as it
// mostly is: it verifies, is new, goes with the upgrade's state, and the policy
// need not be asked. Otherwise it changes nothing and returns errLook.
func (e *Engine) submitAtOnce(ctx context.Context, kind string, env envelope.Envelope) (Result, error) {
	if kind != KindApproval && kind != KindRejection && kind != KindTestRequest || !e.signed(env) {
		return Result{}, errLook
	}
	now := e.now()
	body := env.Bytes()
	parsed, err := openRecord(kind, env)
	if err != nil {
		return Result{}, errLook
	}
	e.opened.put(kind, body, parsed)
	var d *dossier
	err = e.update(ctx, func(tx Tx) error {
		id, err := subjectOf(env)
		if err != nil {
			return errLook
		}
		if d, err = e.load(tx, id, now); err != nil {
			return errors.Join(errLook, err)
		}
		in, err := d.verify(kind, parsed, now)
		if err != nil || d.accepts(kind) != nil || open(d.State) && !e.stillAllows(d, now) {
			return errLook
		}
		if err := d.keep(tx, kind, in.person, in.signedAt, now, env, body); errors.Is(err, errKnown) {
			return errLook
		} else if err != nil {
			return err
		}
		return d.take(tx, in, nil, now)
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Digest: env.PayloadDigest(), UpgradeID: d.ID, State: d.State, Added: true}, nil
}

// signed verifies a signature under the registry as it is known here. All
// writers wait for a transaction, so that what nobody signed gets none; and what
// verified is not verified again in it.
func (e *Engine) signed(env envelope.Envelope) bool {
	e.mu.Lock()
	regs := e.regs
	e.mu.Unlock()
	if len(regs) == 0 || len(env.Signatures) != 1 {
		return false
	}
	entry, err := regs.Last().Lookup(env.Signatures[0].KeyID)
	return err == nil && regs.Last().Verify(entry, env) == nil
}
