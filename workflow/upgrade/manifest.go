package upgrade

import (
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Type is what kind of change a manifest describes.
type Type string

// The types of PROTOCOL section 6.
const (
	TypeCode     Type = "code"
	TypeManifest Type = "manifest"
	TypePolicy   Type = "policy"
	TypeRollback Type = "rollback"
)

// KernelID is the reserved ID of the Kernel itself: holder of its keys, and
// proposer of its own rollbacks.
const KernelID = keyregistry.KernelHolder

// Revision is the patchHash live at a target, or None.
type Revision string

// None is the revision of a target before its first upgrade.
const None Revision = "none"

// RevisionOf is the revision that a patch becomes once it is live.
func RevisionOf(patch envelope.Digest) Revision { return Revision(patch.String()) }

// Digest is the patchHash, and false for None.
func (r Revision) Digest() (envelope.Digest, bool) {
	d, err := envelope.ParseDigest(string(r))
	return d, err == nil
}

// UnmarshalText accepts a digest's text or "none".
func (r *Revision) UnmarshalText(b []byte) error {
	if Revision(b) != None {
		if _, err := envelope.ParseDigest(string(b)); err != nil {
			return failure.New(failure.FieldInvalid, "%.80q is neither a digest nor %q", b, None)
		}
	}
	*r = Revision(b)
	return nil
}

// Manifest describes one upgrade (PROTOCOL section 6).
type Manifest struct {
	BaseRevision  Revision        `json:"baseRevision"`
	Impact        Impact          `json:"impact"`
	KernelID      envelope.ID     `json:"kernelId"`
	KeyID         envelope.KeyID  `json:"keyId"`
	PatchHash     envelope.Digest `json:"patchHash"`
	Preconditions Preconditions   `json:"preconditions"`
	ProposedBy    envelope.ID     `json:"proposedBy"`
	Rationale     string          `json:"rationale"`
	Rollback      *Rollback       `json:"rollback,omitzero"`
	Target        Target          `json:"target"`
	Timestamp     envelope.Time   `json:"timestamp"`
	Type          Type            `json:"type"`
	UpgradeID     envelope.UUID   `json:"upgradeId"`
}

// Impact says what an upgrade touches.
type Impact struct {
	Components []string `json:"components"`
	Cost       *Cost    `json:"cost,omitzero"`
	Downtime   string   `json:"downtime"`
}

// Cost is an amount in a currency's minor units, cents for EUR.
type Cost struct {
	Currency   string `json:"currency"`
	MinorUnits int64  `json:"minorUnits"`
}

// Preconditions are the tests that must have passed, by name, and the quorum.
type Preconditions struct {
	Approvals int64    `json:"approvals"`
	Tests     []string `json:"tests"`
}

// Rollback names the upgrade that is taken back, and why.
type Rollback struct {
	Reason    string        `json:"reason"`
	UpgradeID envelope.UUID `json:"upgradeId"`
}

// Target is what is changed: a commit of a repository, or a manifest by its id.
type Target struct {
	Commit     string      `json:"commit,omitzero"`
	ManifestID string      `json:"manifestId,omitzero"`
	Name       envelope.ID `json:"name"`
	Path       string      `json:"path,omitzero"`
	Repository string      `json:"repository,omitzero"`
}

// Check says whether the manifest's own words are of the form that PROTOCOL
// section 6 asks for, before anybody signs them. OpenManifest does it too.
func (m *Manifest) Check() error {
	if m.ProposedBy == KernelID && m.Type != TypeRollback {
		return failure.New(failure.RoleNotAllowed, "the Kernel proposes rollbacks only")
	}
	if err := m.checkType(); err != nil {
		return err
	}
	return firstError(
		m.Target.check(),
		envelope.CheckText("rationale", m.Rationale, 4000),
		m.Impact.check(),
		m.Preconditions.check(),
	)
}

func (m *Manifest) checkType() error {
	switch m.Type {
	case TypeCode, TypeManifest, TypePolicy:
		if m.Rollback != nil {
			return failure.New(failure.FieldInvalid, "only an upgrade of type rollback has a rollback member")
		}
		return nil
	case TypeRollback:
		if m.Rollback == nil {
			return failure.New(failure.FieldInvalid, "an upgrade of type rollback names the upgrade that it takes back")
		}
		if m.Rollback.UpgradeID == m.UpgradeID {
			return failure.New(failure.FieldInvalid, "a rollback has an upgradeId of its own: one upgradeId has one manifest")
		}
		if m.BaseRevision == None {
			return failure.New(failure.FieldInvalid, "a rollback's baseRevision is the patch that it takes back, never %q", None)
		}
		return envelope.CheckText("rollback.reason", m.Rollback.Reason, 4000)
	}
	return failure.New(failure.FieldInvalid, "type %.40q is none of code, manifest, policy, rollback", m.Type)
}

func (t *Target) check() error {
	if t.ManifestID != "" {
		if t.Repository != "" || t.Path != "" || t.Commit != "" {
			return failure.New(failure.FieldInvalid, "target has either manifestId or repository, path and commit")
		}
		return envelope.CheckText("target.manifestId", t.ManifestID, 200)
	}
	if !envelope.IsLowerHex(t.Commit, 40) && !envelope.IsLowerHex(t.Commit, 64) {
		return failure.New(failure.FieldInvalid, "target.commit is not 40 or 64 lower-case hexadecimal digits")
	}
	return firstError(
		envelope.CheckText("target.repository", t.Repository, 200),
		envelope.CheckText("target.path", t.Path, 400),
	)
}

func (i *Impact) check() error {
	if n := len(i.Components); n < 1 || n > 64 {
		return failure.New(failure.FieldInvalid, "impact.components has %d entries, where 1 to 64 are allowed", n)
	}
	for _, c := range i.Components {
		if err := envelope.CheckText("impact.components", c, 80); err != nil {
			return err
		}
	}
	if i.Cost != nil {
		if err := i.Cost.check(); err != nil {
			return err
		}
	}
	return envelope.CheckText("impact.downtime", i.Downtime, 400)
}

func (c *Cost) check() error {
	ok := len(c.Currency) == 3
	for _, r := range c.Currency {
		ok = ok && r >= 'A' && r <= 'Z'
	}
	if !ok {
		return failure.New(failure.FieldInvalid, "impact.cost.currency is not three capitals")
	}
	return envelope.CheckInt("impact.cost.minorUnits", c.MinorUnits, 0, envelope.MaxInt)
}

func (p *Preconditions) check() error {
	if p.Approvals != Quorum {
		return failure.New(failure.FieldInvalid, "preconditions.approvals is %d; it is always %d", p.Approvals, Quorum)
	}
	return checkNames("preconditions.tests", p.Tests, 0, 64, true)
}

// checkNames checks a list of Text(80).
func checkNames(field string, names []string, least, most int, distinct bool) error {
	if len(names) < least || len(names) > most {
		return failure.New(failure.FieldInvalid, "%s has %d entries, where %d to %d are allowed", field, len(names), least, most)
	}
	for i, name := range names {
		if err := envelope.CheckText(field, name, 80); err != nil {
			return err
		}
		if distinct && slices.Contains(names[:i], name) {
			return failure.New(failure.FieldInvalid, "%s names %q twice", field, name)
		}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
