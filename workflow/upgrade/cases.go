package upgrade

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// PreapprovedSeconds is how long after u's decision a pre-approved rollback of
// u may be decided.
const PreapprovedSeconds = 86400

// Verdict is a decision that was verified from its raw records, as of its own
// time. What only the log or the guard can know (newest decisions, suspensions,
// what is live) is not in it.
type Verdict struct {
	Case           Case
	Manifest       *Manifest
	ManifestDigest envelope.Digest
	BundleDigest   envelope.Digest
	Registry       *keyregistry.Registry // the document in force
	Approvers      []envelope.ID
	DecidedAt      envelope.Time
	RatifyBy       *envelope.Time  // emergencies only
	Policy         *PolicyDecision // nil for automatic rollbacks and ratifications
	Nested         *Verdict        // what an own rollback of the Kernel rests on
	Signed         envelope.Digest // of the manifest's whole envelope, in RFC 8785 form
	// Keys are the keys of all people and CI systems that the verdict rests
	// on, without those of Nested.
	Keys []envelope.KeyID
}

// VerifyBundle verifies a bundle of any case but ratification, as of its
// decidedAt, from its raw records.
func VerifyBundle(regs keyregistry.Chain, b *QuorumBundle) (*Verdict, error) {
	found, err := b.Case()
	if err != nil {
		return nil, err
	}
	v, err := begin(regs, b, found)
	if err != nil {
		return nil, err
	}
	if b.PolicyDecision != nil {
		if err := v.checkPolicy(b.PolicyDecision); err != nil {
			return nil, err
		}
	}
	switch found {
	case CaseQuorum:
		if err := v.checkQuorum(b); err != nil {
			return nil, err
		}
		return v, v.checkTests(b.TestResults)
	case CaseEmergency:
		return v, v.checkEmergency(b)
	case CaseAutomatic:
		return v, v.checkAutomatic(regs, b)
	default:
		return v, v.checkPreapproved(regs, b)
	}
}

// VerifyRatification verifies the ratification of an emergency: the same
// manifest, and a quorum in time. Tests and policy are not asked again.
func VerifyRatification(regs keyregistry.Chain, emergency *Verdict, b *QuorumBundle) (*Verdict, error) {
	if emergency.Case != CaseEmergency {
		return nil, failure.New(failure.EmergencyNotAllowed, "only an emergency is ratified")
	}
	if b.EmergencyTrigger != nil || b.Emergency != nil || b.Preapproval != nil || b.PolicyDecision != nil || b.TestResults != nil {
		return nil, mismatch("a ratification's bundle has only manifest, approvals and quorum")
	}
	v, err := begin(regs, b, CaseRatification)
	if err != nil {
		return nil, err
	}
	// The envelope stands twice, so it is equal, its signature included.
	if envelope.DigestOf(b.Manifest.Bytes()) != emergency.Signed {
		return nil, mismatch("the ratification is of another manifest, or of another signature under it")
	}
	if v.DecidedAt.Before(emergency.DecidedAt) {
		return nil, failure.New(failure.TimeInvalid, "ratified at %s, before the emergency of %s", v.DecidedAt, emergency.DecidedAt)
	}
	if v.DecidedAt.After(*emergency.RatifyBy) {
		return nil, failure.New(failure.RatificationLate, "ratified at %s, after %s", v.DecidedAt, emergency.RatifyBy)
	}
	return v, v.checkQuorum(b)
}

// begin checks what every case has: the registry document, the manifest with
// its proposer, and that what stands twice is equal.
func begin(regs keyregistry.Chain, b *QuorumBundle, c Case) (*Verdict, error) {
	q := &b.Quorum
	reg, err := regs.Find(q.RegistryDigest)
	if err != nil {
		return nil, err
	}
	if reg.Document().IssuedAt.After(q.DecidedAt) {
		return nil, failure.New(failure.TimeInvalid, "decided at %s under a registry document of %s", q.DecidedAt, reg.Document().IssuedAt)
	}
	m, err := VerifyManifest(reg, b.Manifest, q.DecidedAt)
	if err != nil {
		return nil, err
	}
	digest := b.Manifest.PayloadDigest()
	if q.KernelID != m.KernelID || q.UpgradeID != m.UpgradeID || q.ManifestDigest != digest {
		return nil, mismatch("quorum and manifest differ in kernelId, upgradeId or manifestDigest")
	}
	return &Verdict{
		Case: c, Manifest: m, ManifestDigest: digest, Signed: envelope.DigestOf(b.Manifest.Bytes()), BundleDigest: b.Digest(), Registry: reg,
		Approvers: q.Approvers, DecidedAt: q.DecidedAt, Policy: b.PolicyDecision, Keys: []envelope.KeyID{m.KeyID},
	}, nil
}

func (v *Verdict) checkPolicy(d *PolicyDecision) error {
	if err := d.check(); err != nil {
		return err
	}
	if d.KernelID != v.Manifest.KernelID || d.UpgradeID != v.Manifest.UpgradeID || d.ManifestDigest != v.ManifestDigest {
		return mismatch("the policy decision is about another upgrade")
	}
	if age := v.DecidedAt.Sub(d.EvaluatedAt); age < 0 || age > PolicyMaxAge {
		return failure.New(failure.TimeInvalid, "the policy was asked at %s, not in the %d seconds before %s", d.EvaluatedAt, PolicyMaxAge, v.DecidedAt)
	}
	if pinned := v.Registry.Rules().PolicyDigest; pinned != nil && d.PolicyDigest != *pinned {
		return failure.New(failure.PolicyDenied, "policy %s decided, but the registry pins %s", d.PolicyDigest, *pinned)
	}
	if !d.Allow {
		return failure.New(failure.PolicyDenied, "the policy denies this upgrade")
	}
	return nil
}

// checkQuorum verifies each approval and counts persons.
func (v *Verdict) checkQuorum(b *QuorumBundle) error {
	if n := len(b.Approvals); n < Quorum || n > keyregistry.PoolSize {
		return failure.New(failure.QuorumNotMet, "%d approvals, where %d to %d are needed", n, Quorum, keyregistry.PoolSize)
	}
	if len(b.Quorum.Approvers) != len(b.Approvals) {
		return mismatch("quorum.approvers does not list every approval's person")
	}
	nonBrowser := int64(0)
	for i, env := range b.Approvals {
		a, err := VerifyApproval(v.Registry, v.Manifest, v.ManifestDigest, env, v.DecidedAt)
		if err != nil {
			return err
		}
		if i > 0 && b.Quorum.Approvers[i-1] == a.ApproverID {
			return failure.New(failure.DuplicatePerson, "%s stands twice", a.ApproverID)
		}
		if i > 0 && b.Quorum.Approvers[i-1] > a.ApproverID || b.Quorum.Approvers[i] != a.ApproverID {
			return mismatch("approvals are not sorted by approver, or quorum.approvers is not theirs")
		}
		if env.Signatures[0].WebAuthn == nil {
			nonBrowser++
		}
		v.Keys = append(v.Keys, a.KeyID)
	}
	return checkNonBrowser(nonBrowser, v.Registry)
}

func checkNonBrowser(n int64, reg *keyregistry.Registry) error {
	if least := reg.Rules().MinNonBrowserApprovals; n < least {
		return failure.New(failure.QuorumNotMet, "%d approvals from outside a browser, where the registry asks for %d", n, least)
	}
	return nil
}

func (v *Verdict) checkTests(results []envelope.Envelope) error {
	names := v.Manifest.Preconditions.Tests
	if len(results) != len(names) {
		return failure.New(failure.TestsNotMet, "%d test results for %d required tests", len(results), len(names))
	}
	for i, env := range results {
		r, err := VerifyTestResult(v.Registry, env, v.Manifest.PatchHash, v.DecidedAt)
		if err != nil {
			return err
		}
		if r.Name != names[i] || !r.Passed() {
			return failure.New(failure.TestsNotMet, "test %q: there is %s of %.80q in its place", names[i], r.Result, r.Name)
		}
		v.Keys = append(v.Keys, env.Signatures[0].KeyID)
	}
	return nil
}

// checkBare refuses a bundle that has approvals or test results where its case
// has none.
func checkBare(b *QuorumBundle) error {
	if len(b.Approvals) != 0 || len(b.TestResults) != 0 {
		return mismatch("this case has neither approvals nor test results of its own")
	}
	return nil
}

func (v *Verdict) checkEmergency(b *QuorumBundle) error {
	if err := checkBare(b); err != nil {
		return err
	}
	if len(b.Quorum.Approvers) != 0 {
		return mismatch("an emergency has no approvers")
	}
	t, err := VerifyTrigger(v.Registry, v.Manifest, v.ManifestDigest, *b.EmergencyTrigger, v.DecidedAt)
	if err != nil {
		return err
	}
	if v.Manifest.BaseRevision == None {
		return failure.New(failure.EmergencyNotAllowed, "an emergency needs something to go back to")
	}
	ratifyBy := v.DecidedAt.Add(v.Registry.Rules().RatificationWindowSeconds)
	if _, err := envelope.ParseTime(ratifyBy.String()); err != nil {
		return failure.New(failure.TimeInvalid, "ratifyBy would be after the last year that a time can name")
	}
	v.RatifyBy = &ratifyBy
	v.Keys = append(v.Keys, t.KeyID)
	return nil
}

// checkNested verifies the earlier decision that an own rollback of the Kernel
// rests on, in full, and that the rollback takes exactly it back.
func (v *Verdict) checkNested(regs keyregistry.Chain, n *Nested, want Case) error {
	found, err := n.QuorumBundle.Case()
	if err != nil {
		return err
	}
	if found != want {
		return mismatch("the earlier decision is of case %s, not %s", found, want)
	}
	u, err := VerifyBundle(regs, &n.QuorumBundle)
	if err != nil {
		return err
	}
	if err := VerifyRecord(u, n.Record); err != nil {
		return err
	}
	v.Nested = u
	m := v.Manifest
	if m.Type != TypeRollback || m.ProposedBy != KernelID {
		return failure.New(failure.RoleNotAllowed, "only a rollback that the Kernel proposes goes without a quorum of its own")
	}
	return CheckRollbackOf(m, u.Manifest)
}

// CheckRollbackOf refuses a rollback manifest that does not take exactly u back.
func CheckRollbackOf(m, u *Manifest) error {
	if m.Rollback == nil || m.Rollback.UpgradeID != u.UpgradeID || m.Target.Name != u.Target.Name {
		return failure.New(failure.BindingMismatch, "the rollback names another upgrade or target than %s at %s", u.UpgradeID, u.Target.Name)
	}
	if m.BaseRevision != RevisionOf(u.PatchHash) || RevisionOf(m.PatchHash) != u.BaseRevision {
		return failure.New(failure.BindingMismatch, "the rollback does not lead from the patch of %s to its base", u.UpgradeID)
	}
	return nil
}

func (v *Verdict) checkAutomatic(regs keyregistry.Chain, b *QuorumBundle) error {
	if err := checkBare(b); err != nil {
		return err
	}
	if len(b.Quorum.Approvers) != 0 {
		return mismatch("an automatic rollback has no approvers")
	}
	if err := v.checkNested(regs, b.Emergency, CaseEmergency); err != nil {
		return err
	}
	if v.Nested.Manifest.Type == TypeRollback {
		return failure.New(failure.EmergencyNotAllowed, "an emergency of type rollback is not rolled back by itself")
	}
	if !v.DecidedAt.After(*v.Nested.RatifyBy) {
		return failure.New(failure.NotYetDue, "the emergency may be ratified until %s", v.Nested.RatifyBy)
	}
	return nil
}

func (v *Verdict) checkPreapproved(regs keyregistry.Chain, b *QuorumBundle) error {
	if err := checkBare(b); err != nil {
		return err
	}
	if err := v.checkNested(regs, b.Preapproval, CaseQuorum); err != nil {
		return err
	}
	if age := v.DecidedAt.Sub(v.Nested.DecidedAt); age < 0 || age > PreapprovedSeconds {
		return failure.New(failure.TimeInvalid, "the rollback is decided %d seconds after the upgrade, where 0 to %d are allowed", age, PreapprovedSeconds)
	}
	marked, nonBrowser := []envelope.ID{}, int64(0)
	for _, env := range b.Preapproval.QuorumBundle.Approvals {
		a, err := OpenApproval(env)
		if err != nil {
			return err
		}
		if !a.RollbackPreapproved {
			continue
		}
		marked = append(marked, a.ApproverID)
		if env.Signatures[0].WebAuthn == nil {
			nonBrowser++
		}
	}
	if len(marked) < Quorum {
		return failure.New(failure.QuorumNotMet, "%d approvals pre-approve the rollback, where %d must", len(marked), Quorum)
	}
	if !sameIDs(marked, b.Quorum.Approvers) {
		return mismatch("quorum.approvers is not those who pre-approved the rollback")
	}
	return checkNonBrowser(nonBrowser, v.Nested.Registry)
}

func sameIDs(a, b []envelope.ID) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
