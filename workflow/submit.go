package workflow

import (
	"context"
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Result is what became of a record.
type Result struct {
	Digest    envelope.Digest // the record's
	UpgradeID envelope.UUID
	State     State
	Added     bool // false: it was known already
}

// due says that the engine has the next step, now.
func (r Result) due() bool { return r.State != "" && (!open(r.State) || r.State == StateQuorumReached) }

// Submit takes a signed record. The same record again changes nothing. Errors
// are a *failure.Error, ErrNotFound, ErrConflict or ErrHeld; others are the store's.
func (e *Engine) Submit(ctx context.Context, kind string, env envelope.Envelope) (Result, error) {
	if err := env.Check(); err != nil {
		return Result{}, err
	}
	if e.held(ctx, kind) == nil {
		if result, err := e.submitAtOnce(ctx, kind, env); !errors.Is(err, errLook) {
			if result.due() {
				e.poke()
			}
			return result, err
		}
	}
	if known, err := e.known(ctx, kind, env.PayloadDigest()); err != nil || known != nil {
		if known != nil {
			return *known, err
		}
		return Result{}, err
	}
	if err := e.held(ctx, kind); err != nil {
		return Result{}, err
	}
	defer e.poke()
	switch kind {
	case KindManifest:
		return e.submitManifest(ctx, env)
	case KindApproval, KindRejection, KindTestRequest:
		return e.submitRecord(ctx, kind, env)
	case KindTestResult:
		return e.submitTest(ctx, env)
	case KindTrigger:
		return e.submitTrigger(ctx, env)
	}
	return Result{}, fmt.Errorf("%w: records of kind %q are not taken here", ErrConflict, kind)
}

func (e *Engine) known(ctx context.Context, kind string, digest envelope.Digest) (*Result, error) {
	var out *Result
	err := e.Store.View(ctx, func(r Reader) error {
		rec, ok, err := find(r.Record(digest))
		if err != nil || !ok {
			return err
		}
		if rec.Kind != kind {
			return fmt.Errorf("%w: that record is a %s", ErrConflict, rec.Kind)
		}
		u, err := r.Upgrade(rec.UpgradeID)
		out = &Result{Digest: digest, UpgradeID: u.ID, State: u.State}
		return err
	})
	return out, err
}

func (e *Engine) submitManifest(ctx context.Context, env envelope.Envelope) (Result, error) {
	now := e.now()
	d := &dossier{envelope: env, tests: map[string]test{}}
	var spent []upgrade.Cost
	err := e.Store.View(ctx, func(r Reader) (err error) {
		if err = e.admit(r, d, now); err == nil {
			spent, err = r.Spent(d.Target, month(now))
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	live, err := e.Deployer.Live(ctx, d.Target)
	if errors.Is(err, ErrUnknownTarget) {
		return Result{}, err
	}
	if err != nil {
		return Result{}, fmt.Errorf("%w: %s: %w", ErrTargetUnavailable, d.Target, err)
	}
	if live != d.manifest.BaseRevision {
		return Result{}, failure.New(failure.BaseRevisionMoved, "%s is live at %s, not %s; propose it again on that", live, d.Target, d.manifest.BaseRevision)
	}
	decision := e.decide(ctx, d, upgrade.CaseQuorum, spent, now)
	err = e.update(ctx, func(tx Tx) error {
		if err := e.admit(tx, d, now); err != nil {
			return err
		}
		d.CreatedAt = now
		if err := d.put(tx, now); err != nil {
			return err
		}
		if err := d.keep(tx, KindManifest, d.ProposedBy, d.manifest.Timestamp, now, env, env.Bytes()); err != nil {
			return err
		}
		if err := d.keepDecision(tx, decision, now); err != nil {
			return err
		}
		return d.log(tx, auditlog.UpgradeCreated, d.ProposedBy, auditlog.Data{
			auditlog.DataRecordDigest: d.ManifestDigest.String(), "policyAllows": decision.Allow, "target": string(d.Target)})
	})
	return Result{Digest: d.ManifestDigest, UpgradeID: d.ID, State: d.State, Added: err == nil}, err
}

// admit verifies a new manifest and fills d.
func (e *Engine) admit(r Reader, d *dossier, now envelope.Time) error {
	regs, err := e.registries(r)
	if err != nil {
		return err
	}
	d.regs, d.reg, d.newest = regs, regs.Last(), now
	m, err := upgrade.VerifyManifest(d.reg, d.envelope, now)
	if err != nil {
		return err
	}
	if d.suspended, err = suspensions(r, d.reg); err != nil {
		return err
	}
	if d.suspended(m.KeyID) {
		return failure.New(failure.KeySuspended, "the proposer's key is suspended")
	}
	if m.ProposedBy == upgrade.KernelID {
		return failure.New(failure.RoleNotAllowed, "the Kernel's own rollbacks are not submitted from outside")
	}
	if _, ok, err := find(r.Upgrade(m.UpgradeID)); err != nil || ok {
		return errors.Join(err, fmt.Errorf("%w: upgrade %s has another manifest already", ErrConflict, m.UpgradeID))
	}
	d.manifest = m
	d.Upgrade = Upgrade{ID: m.UpgradeID, Target: m.Target.Name, Type: m.Type, State: StateDraft, ProposedBy: m.ProposedBy,
		ManifestDigest: d.envelope.PayloadDigest(), Patch: m.PatchHash, Intent: intentOf(m), UpdatedAt: now, ExpiresAt: now.Add(d.reg.Rules().ApprovalTTLSeconds)}
	return e.checkRollback(r, d, now)
}

// checkRollback: a rollback takes back exactly what is live at its target.
func (e *Engine) checkRollback(r Reader, d *dossier, now envelope.Time) error {
	if d.manifest.Type != upgrade.TypeRollback {
		return nil
	}
	target, err := r.Target(d.Target)
	if err != nil {
		return err
	}
	if target.LiveUpgrade != d.manifest.Rollback.UpgradeID {
		return failure.New(failure.BaseRevisionMoved, "upgrade %s is not what is live at %s", d.manifest.Rollback.UpgradeID, d.Target)
	}
	u, err := e.load(r, target.LiveUpgrade, now)
	if err != nil {
		return err
	}
	return upgrade.CheckRollbackOf(d.manifest, u.manifest)
}

// keep stores a record; body is env.Bytes().
func (d *dossier) keep(tx Tx, kind string, person envelope.ID, signedAt, now envelope.Time, env envelope.Envelope, body []byte) error {
	rec := Record{Digest: env.PayloadDigest(), UpgradeID: d.ID, Kind: kind, Person: person, SignedAt: signedAt, ReceivedAt: now, Body: body}
	added, err := tx.AddRecord(rec)
	if err == nil && !added {
		err = errKnown
	}
	return err
}

var errKnown = fmt.Errorf("%w: the record came in twice at once", ErrConflict)

// keepDecision stores what the policy said and makes it the newest.
func (d *dossier) keepDecision(tx Tx, decision *upgrade.PolicyDecision, now envelope.Time) error {
	d.policy = decision
	_, err := d.keepOwn(tx, KindPolicyDecision, decision, now)
	return err
}

// keepOwn stores something of the Kernel's that is no envelope.
func (d *dossier) keepOwn(tx Tx, kind string, v any, now envelope.Time) (envelope.Digest, error) {
	body, err := envelope.Canonical(v)
	if err != nil {
		return envelope.Digest{}, err
	}
	digest := envelope.DigestOf(body)
	_, err = tx.AddRecord(Record{Digest: digest, UpgradeID: d.ID, Kind: kind, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: body})
	return digest, err
}
