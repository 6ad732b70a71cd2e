package workflow

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The kinds of records.
const (
	KindManifest           = "manifest"
	KindApproval           = "approval"
	KindRejection          = "rejection"
	KindTestRequest        = "test-request"
	KindTestResult         = "test-result"
	KindTrigger            = "emergency-trigger"
	KindPolicyDecision     = "policy-decision"
	KindQuorumBundle       = "quorum-bundle"
	KindAppliedRecord      = "applied-record"
	KindRatificationBundle = "ratification-bundle"
	KindRatification       = "ratification"
	KindRollbackDraft      = "rollback-draft" // a rollback manifest before the guard signed it
	KindCanaryBaseline     = "canary-baseline"
	KindCanaryReport       = "canary-report"
	KindRegistryEntry      = "registry-entry" // of no upgrade, as is the next
	KindSuspension         = "key-suspension"
)

// dossier is all that is known of one upgrade, as of one transaction.
type dossier struct {
	Upgrade
	regs      keyregistry.Chain
	reg       *keyregistry.Registry // the one in force
	suspended upgrade.Suspended

	manifest   *upgrade.Manifest
	envelope   envelope.Envelope // the manifest's
	decisions  []upgrade.Decision
	tests      map[string]test    // the newest result by name
	trigger    *envelope.Envelope // the newest
	policy     *upgrade.PolicyDecision
	decidedSeq int64  // where the newest policy decision stands among the records
	testedSeq  int64  // where the newest test result stands
	bundle     []byte // the newest quorum bundle
	record     *envelope.Envelope
	newest     envelope.Time // receipt of the newest record of people or CI

	ratifying    []byte // the newest ratification's bundle
	ratification *envelope.Envelope
	drafts       []*upgrade.Manifest // of the Kernel's rollback of this upgrade, the newest last
	baseline     *canaryRecord
	report       *canaryRecord

	refusedRollback bool // the rollback of it ended without taking it back; for the view
}

type test struct {
	upgrade.TestResult
	envelope envelope.Envelope
}

// rollbackDraft wraps a manifest, so that its digest is not that of the
// manifest which the guard signs.
type rollbackDraft struct {
	Draft upgrade.Manifest `json:"draft"`
}

// canaryRecord is a canary's report as it is stored, under its upgrade, so that
// two equal reports are two records.
type canaryRecord struct {
	Kind      string         `json:"kind"`
	Passed    bool           `json:"passed"`
	Report    jsontext.Value `json:"report"`
	UpgradeID envelope.UUID  `json:"upgradeId"`
	digest    envelope.Digest
}

func (e *Engine) load(r Reader, id envelope.UUID, now envelope.Time) (*dossier, error) {
	u, err := r.Upgrade(id)
	if err != nil {
		return nil, err
	}
	d := &dossier{Upgrade: u, tests: map[string]test{}}
	if d.regs, err = e.registries(r); err != nil {
		return nil, err
	}
	d.reg = d.regs.Last()
	if d.suspended, err = suspensions(r, d.reg); err != nil {
		return nil, err
	}
	records, err := r.Records(id)
	if err != nil {
		return nil, err
	}
	// A test result may be older than the manifest of the same patch.
	for _, first := range []bool{true, false} {
		for _, rec := range records {
			if (rec.Kind == KindManifest) != first {
				continue
			}
			if err := d.add(&e.opened, rec, now); err != nil {
				return nil, fmt.Errorf("stored %s %s: %w", rec.Kind, rec.Digest, err)
			}
		}
		if d.manifest == nil {
			return nil, fmt.Errorf("upgrade %s has no manifest in the store", id)
		}
	}
	d.dropSuspended()
	if open(d.State) {
		d.ExpiresAt = d.newest.Add(d.reg.Rules().ApprovalTTLSeconds)
	}
	return d, nil
}

// add takes up one record. Envelopes are parsed where they are needed.
func (d *dossier) add(m *memory, rec Record, now envelope.Time) (err error) {
	switch rec.Kind {
	case KindPolicyDecision:
		d.policy, d.decidedSeq = new(upgrade.PolicyDecision), rec.Seq
		return envelope.DecodeCanonical(rec.Body, upgrade.MaxBundle, d.policy)
	case KindQuorumBundle:
		d.bundle = rec.Body
		return nil
	case KindRatificationBundle:
		d.ratifying = rec.Body
		return nil
	case KindRollbackDraft:
		var draft rollbackDraft
		err := envelope.DecodeCanonical(rec.Body, 2*envelope.MaxPayload, &draft)
		d.drafts = append(d.drafts, &draft.Draft)
		return err
	case KindCanaryBaseline:
		d.baseline, err = openReport(rec)
		return err
	case KindCanaryReport:
		d.report, err = openReport(rec)
		return err
	}
	known, err := m.open(rec.Kind, rec.Body)
	if err != nil {
		return err
	}
	env := known.envelope
	switch rec.Kind {
	case KindAppliedRecord:
		d.record = &env
		return nil
	case KindRatification:
		d.ratification = &env
		return nil
	case KindManifest:
		d.envelope, d.manifest = env, known.manifest
	case KindApproval, KindRejection:
		d.decisions = append(d.decisions, upgrade.Decision{
			Person: rec.Person, Rejected: rec.Kind == KindRejection, SignedAt: rec.SignedAt, Envelope: env, Approval: known.approval})
	case KindTrigger:
		d.trigger = &env
	case KindTestResult:
		d.testedSeq = max(d.testedSeq, rec.Seq)
		result, verr := upgrade.VerifyTestResult(d.reg, env, d.manifest.PatchHash, now)
		if verr == nil {
			d.tests[result.Name] = test{*result, env}
		}
	}
	if rec.ReceivedAt.After(d.newest) {
		d.newest = rec.ReceivedAt
	}
	return err
}

func openReport(rec Record) (*canaryRecord, error) {
	c := &canaryRecord{digest: rec.Digest}
	return c, envelope.DecodeCanonical(rec.Body, upgrade.MaxBundle, c)
}

// dropSuspended forgets results by keys that are suspended: they count nowhere.
func (d *dossier) dropSuspended() {
	for name, t := range d.tests {
		if d.suspended(t.envelope.Signatures[0].KeyID) {
			delete(d.tests, name)
		}
	}
}

func suspensions(r Reader, reg *keyregistry.Registry) (upgrade.Suspended, error) {
	envs, err := r.Suspensions(reg.Digest())
	if err != nil {
		return nil, err
	}
	keys := map[envelope.KeyID]bool{}
	for _, env := range envs {
		var s keyregistry.Suspension
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &s); err != nil {
			return nil, fmt.Errorf("stored suspension: %w", err)
		}
		keys[s.SuspendedKeyID] = true
	}
	return func(id envelope.KeyID) bool { return keys[id] }, nil
}

func (d *dossier) tally(now envelope.Time) upgrade.Count {
	return upgrade.Tally(d.reg, d.manifest, d.ManifestDigest, d.decisions, d.suspended, now)
}

// unmet lists the required tests without a passing newest result; failed says
// that one of them was reported and failed.
func (d *dossier) unmet() (names []string, failed bool) {
	for _, name := range d.manifest.Preconditions.Tests {
		t, ok := d.tests[name]
		if ok && t.Passed() {
			continue
		}
		names = append(names, name)
		failed = failed || ok
	}
	return names, failed
}

// decided is the newest quorum bundle.
func (d *dossier) decided() (*upgrade.QuorumBundle, error) {
	if d.bundle == nil {
		return nil, fmt.Errorf("%w: upgrade %s has no quorum bundle", ErrNotFound, d.ID)
	}
	return upgrade.ParseQuorumBundle(d.bundle)
}

func find[T any](v T, err error) (T, bool, error) {
	if errors.Is(err, ErrNotFound) {
		return v, false, nil
	}
	return v, err == nil, err
}
