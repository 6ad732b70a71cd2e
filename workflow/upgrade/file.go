package upgrade

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// MediaType names the bundle file's format and version.
const MediaType = "application/vnd.kernelgate.upgrade-bundle.v1+json"

// File is a bundle file (PROTOCOL section 9): all that an outsider needs to
// verify one upgrade offline. Audit is the RFC 8785 form of an AuditProof; it
// is kept raw because a verifier may be told not to look at it.
type File struct {
	AppliedRecord envelope.Envelope            `json:"appliedRecord"`
	Audit         jsontext.Value               `json:"audit,omitzero"`
	MediaType     string                       `json:"mediaType"`
	QuorumBundle  QuorumBundle                 `json:"quorumBundle"`
	Ratification  *Nested                      `json:"ratification,omitzero"`
	Registry      []keyregistry.SignedDocument `json:"registry"`
}

// AuditProof shows that the log knew of a decision when it was made.
type AuditProof struct {
	Checkpoint string           `json:"checkpoint"` // a signed note
	Entries    []auditlog.Entry `json:"entries"`    // by index
}

// FileVerdict is what a valid bundle file proves.
type FileVerdict struct {
	*Verdict
	Record       envelope.Digest // the AppliedUpgradeRecord's payload digest
	Ratification *Verdict        // nil where there is none
	LogSize      int64           // of the checkpoint; 0 when the audit part was not looked at
}

// VerifyFile verifies a bundle file's bytes by every rule of PROTOCOL as of
// its own decidedAt. withAudit false leaves the audit part alone.
func VerifyFile(data []byte, root envelope.Digest, withAudit bool) (*FileVerdict, error) {
	f := new(File)
	if err := envelope.DecodeCanonical(data, MaxBundle, f); err != nil {
		return nil, err
	}
	if f.MediaType != MediaType {
		return nil, mismatch("mediaType is %.120q, not %s", f.MediaType, MediaType)
	}
	regs, err := keyregistry.AcceptChain(root, f.Registry)
	if err != nil {
		return nil, err
	}
	v, err := VerifyBundle(regs, &f.QuorumBundle)
	if err != nil {
		return nil, err
	}
	if err := VerifyRecord(v, f.AppliedRecord); err != nil {
		return nil, err
	}
	out := &FileVerdict{Verdict: v, Record: f.AppliedRecord.PayloadDigest()}
	if f.Ratification != nil {
		if out.Ratification, err = VerifyRatification(regs, v, &f.Ratification.QuorumBundle); err != nil {
			return nil, err
		}
		if err := VerifyRatificationRecord(out.Ratification, f.Ratification.Record, out.Record); err != nil {
			return nil, err
		}
	}
	if !withAudit {
		return out, nil
	}
	out.LogSize, err = verifyAudit(f.Audit, regs, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}
