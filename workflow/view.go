package workflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// View is all that may be shown of one upgrade.
type View struct {
	Upgrade     Upgrade // with its case, ratifyBy, expiry, and the Kernel's rollback of it
	Manifest    upgrade.Manifest
	Envelope    envelope.Envelope // the manifest's
	Seats       []upgrade.Seat    // five
	Quorum      bool
	Tests       []upgrade.TestResult    // of the required tests, those reported, in the manifest's order
	UnmetTests  []string                // required tests without a passing newest result
	Policy      *upgrade.PolicyDecision // the newest; nil before the first
	Registry    envelope.Digest         // the document in force, which approvals must name
	Emergency   *upgrade.EmergencyTrigger
	Ratified    bool
	Preapproved int           // approvals in force or decided on that pre-approve the rollback
	Canary      CanaryDigests // zero digests where there is no report
	Next        NextStep
	Events      []StoredEvent
}

// CanaryDigests names the records of the canary's reports.
type CanaryDigests struct {
	Baseline envelope.Digest
	Report   envelope.Digest
	Passed   bool // what the report says
}

// Upgrade shows one upgrade as it stands now. ErrNotFound where there is none.
func (e *Engine) Upgrade(ctx context.Context, id envelope.UUID) (View, error) {
	var v View
	err := e.read(ctx, id, func(d *dossier, r Reader) (err error) {
		now := e.now()
		count, err := d.standing(now)
		if err != nil {
			return err
		}
		if d.State == StateRollbackScheduled && d.RollbackID != "" {
			rollback, err := r.Upgrade(d.RollbackID)
			if err != nil {
				return err
			}
			d.refusedRollback = slices.Contains([]State{StateRejected, StateExpired, StateApplyFailed}, rollback.State)
		}
		v = View{Upgrade: d.Upgrade, Manifest: *d.manifest, Envelope: d.envelope, Seats: count.Seats, Quorum: count.Quorum, Policy: d.policy,
			Registry: d.reg.Digest(), Ratified: d.ratification != nil, Next: d.next(count, now)}
		v.UnmetTests, _ = d.unmet()
		for _, name := range d.manifest.Preconditions.Tests {
			if t, ok := d.tests[name]; ok {
				v.Tests = append(v.Tests, t.TestResult)
			}
		}
		if d.trigger != nil {
			v.Emergency = new(upgrade.EmergencyTrigger)
			if err := envelope.DecodeCanonical(d.trigger.Payload, envelope.MaxPayload, v.Emergency); err != nil {
				return err
			}
		}
		approvals := &upgrade.QuorumBundle{Approvals: count.Approvals}
		if d.bundle != nil && d.byQuorum() {
			if approvals, err = d.decided(); err != nil {
				return err
			}
		}
		v.Preapproved = len(marked(approvals))
		if d.baseline != nil {
			v.Canary.Baseline = d.baseline.digest
		}
		if d.report != nil {
			v.Canary.Report, v.Canary.Passed = d.report.digest, d.report.Passed
		}
		v.Events, err = r.UpgradeEvents(id)
		return err
	})
	return v, err
}

// standing is how the seats stand: now where people still decide; as of the
// decision, by its registry document, where a quorum has decided; for what
// ended without one, as of its end.
func (d *dossier) standing(now envelope.Time) (upgrade.Count, error) {
	if open(d.State) || d.State == StateEmergencyApplied {
		return d.tally(now), nil
	}
	raw := d.bundle
	if d.ratification != nil {
		raw = d.ratifying
	}
	if raw == nil || !d.byQuorum() && d.ratification == nil {
		return d.tally(d.UpdatedAt), nil
	}
	b, err := upgrade.ParseQuorumBundle(raw)
	if err != nil {
		return upgrade.Count{}, err
	}
	for _, reg := range d.regs {
		if reg.Digest() == b.Quorum.RegistryDigest {
			return upgrade.Tally(reg, d.manifest, d.ManifestDigest, d.decisions, func(envelope.KeyID) bool { return false }, b.Quorum.DecidedAt), nil
		}
	}
	return d.tally(d.UpdatedAt), nil
}

// Registry is the document in force.
func (e *Engine) Registry(ctx context.Context) (reg *keyregistry.Registry, err error) {
	err = e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err == nil {
			reg = regs.Last()
		}
		return err
	})
	return reg, err
}

// Preview asks the policy about a manifest that is not signed yet, as it would
// be asked on submission: without test results. Nothing is stored. A target
// that is not configured is ErrUnknownTarget, as there.
func (e *Engine) Preview(ctx context.Context, m upgrade.Manifest) (*upgrade.PolicyDecision, error) {
	if _, err := e.Deployer.Live(ctx, m.Target.Name); errors.Is(err, ErrUnknownTarget) {
		return nil, err
	}
	now := e.now()
	var spent []upgrade.Cost
	err := e.Store.View(ctx, func(r Reader) (err error) {
		spent, err = r.Spent(m.Target.Name, month(now))
		return err
	})
	if err != nil {
		return nil, err
	}
	d := &dossier{Upgrade: Upgrade{ID: m.UpgradeID}, manifest: &m}
	return e.decide(ctx, d, upgrade.CaseQuorum, spent, now), nil
}

// intentOf is what an upgrade is for, in one line.
func intentOf(m *upgrade.Manifest) string {
	line, _, _ := strings.Cut(m.Rationale, "\n")
	return line
}

// Bundle is the bundle file of an upgrade with an AppliedUpgradeRecord
// (PROTOCOL section 9), under a checkpoint over all that was logged. ErrConflict
// where there is no record.
func (e *Engine) Bundle(ctx context.Context, id envelope.UUID) ([]byte, error) {
	if err := e.seal(ctx); err != nil {
		e.Logger.WarnContext(ctx, "the log could not be sealed for a bundle file; it gets the last checkpoint", "err", err)
	}
	var file upgrade.File
	err := e.read(ctx, id, func(d *dossier, r Reader) error {
		if d.record == nil {
			return fmt.Errorf("%w: upgrade %s is %s and has no AppliedUpgradeRecord", ErrConflict, id, d.State)
		}
		b, err := d.decided()
		if err != nil {
			return err
		}
		file = upgrade.File{AppliedRecord: *d.record, MediaType: upgrade.MediaType, QuorumBundle: *b}
		if d.ratification != nil {
			ratified, err := upgrade.ParseQuorumBundle(d.ratifying)
			if err != nil {
				return err
			}
			file.Ratification = &upgrade.Nested{QuorumBundle: *ratified, Record: *d.ratification}
		}
		if file.Registry, err = r.Registry(); err != nil {
			return err
		}
		proof, err := auditProof(r, &file)
		if err != nil {
			return err
		}
		raw, err := envelope.Canonical(proof)
		file.Audit = jsontext.Value(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	return envelope.Canonical(file)
}

// auditProof is every event that the file's decisions need, and those that
// introduced the keys that signed them, under the newest checkpoint.
func auditProof(r Reader, f *upgrade.File) (*upgrade.AuditProof, error) {
	note, size, err := r.Checkpoint()
	if err != nil {
		return nil, err
	}
	needed, err := witnesses(r, f)
	if err != nil {
		return nil, err
	}
	for _, ev := range slices.Clone(needed) {
		key, err := introduction(r, &ev)
		if err != nil {
			return nil, err
		}
		needed = append(needed, *key)
	}
	slices.SortFunc(needed, func(a, b StoredEvent) int { return cmp.Compare(a.Seq, b.Seq) })
	needed = slices.CompactFunc(needed, func(a, b StoredEvent) bool { return a.Seq == b.Seq })
	proof := &upgrade.AuditProof{Checkpoint: note}
	for _, ev := range needed {
		entry := auditlog.Entry{Index: ev.Seq, Leaf: ev.Leaf}
		if entry.Proof, err = r.InclusionProof(ev.Seq, size); err != nil {
			return nil, err
		}
		proof.Entries = append(proof.Entries, entry)
	}
	return proof, nil
}

// witnesses are the events that PROTOCOL section 9 asks of a file.
func witnesses(r Reader, f *upgrade.File) (out []StoredEvent, err error) {
	add := func(id envelope.UUID, eventType string, bundle envelope.Digest) {
		if err != nil {
			return
		}
		var events []StoredEvent
		if events, err = r.UpgradeEvents(id); err != nil {
			return
		}
		ev := newestEvent(events, eventType, bundle)
		if ev == nil {
			err = fmt.Errorf("%w: no %s event of %s", ErrNotFound, eventType, id)
			return
		}
		out = append(out, *ev)
	}
	b := &f.QuorumBundle
	add(b.Quorum.UpgradeID, auditlog.UpgradeApplying, b.Digest())
	for _, nested := range []*upgrade.Nested{b.Emergency, b.Preapproval} {
		if nested != nil {
			add(nested.QuorumBundle.Quorum.UpgradeID, auditlog.UpgradeApplying, nested.QuorumBundle.Digest())
		}
	}
	if b.Preapproval != nil {
		add(b.Preapproval.QuorumBundle.Quorum.UpgradeID, auditlog.UpgradeCanaryFailed, envelope.Digest{})
	}
	if f.Ratification != nil {
		add(b.Quorum.UpgradeID, auditlog.UpgradeRatified, f.Ratification.QuorumBundle.Digest())
	}
	return out, err
}

// introduction finds the audit.key_delegated event of ev's key, newest first.
func introduction(r Reader, ev *StoredEvent) (*StoredEvent, error) {
	const batch = 500
	for end := ev.Seq; end > 0; {
		from := max(0, end-batch)
		events, err := r.Events(from, int(end-from))
		if err != nil {
			return nil, err
		}
		for i := len(events) - 1; i >= 0; i-- {
			if events[i].Event.Type == auditlog.KeyDelegated && events[i].Event.KeyID == ev.Event.KeyID {
				return &events[i], nil
			}
		}
		end = from
	}
	return nil, fmt.Errorf("%w: no event introduces event key %s", ErrNotFound, ev.Event.KeyID)
}
