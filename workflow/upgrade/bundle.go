package upgrade

import (
	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// MaxBundle is the size limit of a quorum bundle and of a bundle file, in bytes.
const MaxBundle = 16 << 20

// QuorumBundle is everything that a decision rests on (PROTOCOL section 8).
// Which optional members are there says which case it is.
type QuorumBundle struct {
	Approvals        []envelope.Envelope `json:"approvals"` // sorted by approverId
	Emergency        *Nested             `json:"emergency,omitzero"`
	EmergencyTrigger *envelope.Envelope  `json:"emergencyTrigger,omitzero"`
	Manifest         envelope.Envelope   `json:"manifest"`
	PolicyDecision   *PolicyDecision     `json:"policyDecision,omitzero"`
	Preapproval      *Nested             `json:"preapproval,omitzero"`
	Quorum           QuorumInfo          `json:"quorum"`
	// TestResults has one envelope per required test, in that order. Nil, it
	// is left out: in ratifications only.
	TestResults []envelope.Envelope `json:"testResults,omitzero"`
}

// QuorumInfo says what was decided, when, by whom and under which registry document.
type QuorumInfo struct {
	Approvers      []envelope.ID   `json:"approvers"`
	DecidedAt      envelope.Time   `json:"decidedAt"`
	KernelID       envelope.ID     `json:"kernelId"`
	ManifestDigest envelope.Digest `json:"manifestDigest"`
	RegistryDigest envelope.Digest `json:"registryDigest"`
	UpgradeID      envelope.UUID   `json:"upgradeId"`
}

// Nested is an earlier decision, whole, that a later one rests on.
type Nested struct {
	QuorumBundle QuorumBundle      `json:"quorumBundle"`
	Record       envelope.Envelope `json:"record"`
}

// ParseQuorumBundle parses a bundle's canonical bytes.
func ParseQuorumBundle(data []byte) (*QuorumBundle, error) {
	b := new(QuorumBundle)
	if err := envelope.DecodeCanonical(data, MaxBundle, b); err != nil {
		return nil, err
	}
	return b, nil
}

// Bytes is the bundle in RFC 8785 form. The members of all that it is made of
// stand in order, and none is a number, so that it is written in that form at once.
func (b *QuorumBundle) Bytes() []byte {
	data, err := json.Marshal(b)
	if err != nil {
		// Every member was parsed or made from checked values.
		panic("upgrade: " + err.Error())
	}
	return data
}

// Digest is the bundleDigest.
func (b *QuorumBundle) Digest() envelope.Digest { return envelope.DigestOf(b.Bytes()) }

// Case is which case of PROTOCOL section 8 the bundle's members make it. A
// ratification cannot be told by them alone; it is never found here.
func (b *QuorumBundle) Case() (Case, error) {
	found := CaseQuorum
	extra := 0
	for _, c := range []struct {
		present bool
		name    Case
	}{
		{b.EmergencyTrigger != nil, CaseEmergency},
		{b.Emergency != nil, CaseAutomatic},
		{b.Preapproval != nil, CasePreapproved},
	} {
		if c.present {
			found = c.name
			extra++
		}
	}
	if extra > 1 {
		return "", mismatch("the bundle is of more than one case")
	}
	if (b.PolicyDecision == nil) != (found == CaseAutomatic) {
		return "", mismatch("a policy decision stands in every bundle but that of an automatic rollback")
	}
	if b.TestResults == nil {
		return "", mismatch("testResults is missing")
	}
	return found, nil
}

func mismatch(format string, args ...any) error {
	return failure.New(failure.BundleMismatch, format, args...)
}
