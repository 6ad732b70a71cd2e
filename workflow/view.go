package workflow

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// View is all that may be shown of one upgrade.
type View struct {
	Upgrade  Upgrade
	Manifest upgrade.Manifest
	Envelope envelope.Envelope // the manifest's
	Seats    []upgrade.Seat    // five
	Quorum   bool
	Tests    []upgrade.TestResult    // of the required tests, those reported, in the manifest's order
	Policy   *upgrade.PolicyDecision // the newest; nil before the first
	Events   []StoredEvent
}

// Upgrade shows one upgrade as it stands now. ErrNotFound where there is none.
func (e *Engine) Upgrade(ctx context.Context, id envelope.UUID) (View, error) {
	var v View
	err := e.read(ctx, id, func(d *dossier, r Reader) (err error) {
		count := d.tally(e.now())
		v = View{Upgrade: d.Upgrade, Manifest: *d.manifest, Envelope: d.envelope, Seats: count.Seats, Quorum: count.Quorum, Policy: d.policy}
		for _, name := range d.manifest.Preconditions.Tests {
			if t, ok := d.tests[name]; ok {
				v.Tests = append(v.Tests, t.TestResult)
			}
		}
		v.Events, err = r.UpgradeEvents(id)
		return err
	})
	return v, err
}

// Bundle is the bundle file of an upgrade with an AppliedUpgradeRecord
// (PROTOCOL section 9). ErrNotFound or ErrConflict where there is none.
func (e *Engine) Bundle(ctx context.Context, id envelope.UUID) ([]byte, error) {
	var file upgrade.File
	err := e.read(ctx, id, func(d *dossier, r Reader) error {
		if d.record == nil {
			return fmt.Errorf("%w: upgrade %s is %s and has no AppliedUpgradeRecord", ErrConflict, id, d.State)
		}
		b, err := upgrade.ParseQuorumBundle(d.bundle)
		if err != nil {
			return err
		}
		file = upgrade.File{AppliedRecord: *d.record, MediaType: upgrade.MediaType, QuorumBundle: *b}
		if file.Registry, err = r.Registry(); err != nil {
			return err
		}
		proof, err := auditProof(r, id)
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

// auditProof is the newest upgrade.applying event of an upgrade, and the event
// that introduced the key that signed it, under the newest checkpoint.
func auditProof(r Reader, id envelope.UUID) (*upgrade.AuditProof, error) {
	note, size, err := r.Checkpoint()
	if err != nil {
		return nil, err
	}
	events, err := r.UpgradeEvents(id)
	if err != nil {
		return nil, err
	}
	var applying *StoredEvent
	for i := range events {
		if events[i].Event.Type == auditlog.UpgradeApplying {
			applying = &events[i]
		}
	}
	if applying == nil {
		return nil, fmt.Errorf("%w: no upgrade.applying event of %s", ErrNotFound, id)
	}
	key, err := introduction(r, applying)
	if err != nil {
		return nil, err
	}
	proof := &upgrade.AuditProof{Checkpoint: note}
	for _, ev := range []*StoredEvent{key, applying} {
		entry := auditlog.Entry{Index: ev.Seq, Leaf: ev.Leaf}
		if entry.Proof, err = r.InclusionProof(ev.Seq, size); err != nil {
			return nil, err
		}
		proof.Entries = append(proof.Entries, entry)
	}
	return proof, nil
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
