package upgrade

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// maxEventDistance is how far, in seconds, an event may be from the decision
// that it speaks of.
const maxEventDistance = 600

// verifyAudit verifies a bundle file's audit part and returns the size of the
// log that its checkpoint seals.
func verifyAudit(raw []byte, regs keyregistry.Chain, v *FileVerdict) (int64, error) {
	if raw == nil {
		return 0, failure.New(failure.AuditProofInvalid, "the file has no audit part")
	}
	var proof AuditProof
	if err := envelope.DecodeCanonical(raw, MaxBundle, &proof); err != nil {
		return 0, err
	}
	kernelID := regs.Last().KernelID()
	checkpoint, err := auditlog.OpenCheckpoint(proof.Checkpoint, kernelID, regs.Last().Document().Kernel.Audit)
	if err != nil {
		return 0, err
	}
	events, err := verifyEntries(proof.Entries, checkpoint, regs)
	if err != nil {
		return 0, err
	}
	return checkpoint.Size, requireEvents(events, v)
}

// verifyEntries verifies every entry: in the tree, in order, at no earlier time
// than the one before, of this Kernel, and signed by an event key that an entry
// up to this one introduces.
func verifyEntries(entries []auditlog.Entry, checkpoint auditlog.Checkpoint, regs keyregistry.Chain) ([]auditlog.Event, error) {
	events := make([]auditlog.Event, len(entries))
	keys := make(map[envelope.KeyID]auditlog.EventKey)
	for i, e := range entries {
		if i > 0 && entries[i-1].Index >= e.Index {
			return nil, failure.New(failure.AuditProofInvalid, "entry %d does not stand after entry %d", e.Index, entries[i-1].Index)
		}
		event, env, err := e.Verify(checkpoint)
		if err != nil {
			return nil, err
		}
		if event.KernelID != regs.Last().KernelID() {
			return nil, failure.New(failure.AuditProofInvalid, "event %d is of another Kernel", event.Seq)
		}
		if i > 0 && event.Time.Before(events[i-1].Time) {
			return nil, failure.New(failure.AuditProofInvalid, "event %d is of %s, before the time of event %d", event.Seq, event.Time, events[i-1].Seq)
		}
		if event.Type == auditlog.KeyDelegated {
			key, err := auditlog.VerifyDelegation(regs, event)
			if err != nil {
				return nil, err
			}
			keys[key.EventKeyID] = key
		}
		key, ok := keys[event.KeyID]
		if !ok {
			return nil, failure.New(failure.AuditProofInvalid, "no entry before event %d introduces its key", event.Seq)
		}
		if err := auditlog.VerifyEvent(event, env, key); err != nil {
			return nil, failure.Reclass(failure.AuditProofInvalid, err)
		}
		events[i] = event
	}
	return events, nil
}

// requireEvents refuses a file whose entries do not show the events that its
// decisions need.
func requireEvents(events []auditlog.Event, v *FileVerdict) error {
	decisions := []*Verdict{v.Verdict, v.Nested, v.Ratification}
	for _, d := range decisions {
		if d == nil {
			continue
		}
		eventType := auditlog.UpgradeApplying
		if d.Case == CaseRatification {
			eventType = auditlog.UpgradeRatified
		}
		// The bundleDigest says which upgrade it is; an upgradeId may be left out.
		shown := func(e auditlog.Event) bool {
			return announces(e, eventType, d) && (e.UpgradeID == "" || e.UpgradeID == d.Manifest.UpgradeID)
		}
		if !hasEvent(events, shown) {
			return failure.New(failure.AuditProofInvalid, "no %s event of bundle %s near %s", eventType, d.BundleDigest, d.DecidedAt)
		}
	}
	if v.Case == CasePreapproved {
		failed := func(e auditlog.Event) bool {
			return e.Type == auditlog.UpgradeCanaryFailed && e.UpgradeID == v.Nested.Manifest.UpgradeID
		}
		if !hasEvent(events, failed) {
			return failure.New(failure.AuditProofInvalid, "no event says that the canary of %s failed", v.Nested.Manifest.UpgradeID)
		}
	}
	return nil
}

// Announces reports whether an event of this type names the verdict's bundle
// and upgrade, near its time.
func Announces(e auditlog.Event, eventType string, v *Verdict) bool {
	return e.UpgradeID == v.Manifest.UpgradeID && announces(e, eventType, v)
}

func announces(e auditlog.Event, eventType string, v *Verdict) bool {
	distance := e.Time.Sub(v.DecidedAt)
	return e.Type == eventType && e.Data.Text(auditlog.DataBundleDigest) == v.BundleDigest.String() &&
		distance >= -maxEventDistance && distance <= maxEventDistance
}

func hasEvent(events []auditlog.Event, ok func(auditlog.Event) bool) bool {
	for _, e := range events {
		if ok(e) {
			return true
		}
	}
	return false
}
