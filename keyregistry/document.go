// Package keyregistry says whose key counts: the registry document that fixes
// five approvers, the rules by which one document follows another, and
// suspensions (PROTOCOL section 5). It is pure: bytes in, verdicts out; time is
// always an argument.
package keyregistry

import (
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/webauthn"
)

const (
	// PoolSize is how many approvers there are: a constant of the format, not a setting.
	PoolSize = 5
	// Quorum is how many of them must agree: a constant likewise.
	Quorum = 3
	// MaxDocument is the size limit of a registry document, in bytes.
	MaxDocument = 1 << 20
	// MaxKeys is the most keys that one person has.
	MaxKeys = 8
	// MaxKernelKeys is the most keys that the Kernel has of one of its two kinds.
	MaxKernelKeys = 4
)

// KernelHolder is the reserved ID that holds the Kernel's keys.
const KernelHolder envelope.ID = "kernel"

// Role is an approver's role.
type Role string

// The roles of PROTOCOL section 5.
const (
	SuperAdmin       Role = "superadmin"
	SecurityEngineer Role = "security-engineer"
	TechnicalLead    Role = "technical-lead"
	DivisionLead     Role = "division-lead"
)

// MayTriggerEmergency reports whether the role may trigger an emergency, and
// suspend a key of somebody else.
func (r Role) MayTriggerEmergency() bool { return r == SuperAdmin || r == SecurityEngineer }

// Origin is where a key lives.
type Origin string

// The origins of PROTOCOL section 5.
const (
	OriginPKCS11   Origin = "pkcs11"
	OriginAWSKMS   Origin = "awskms"
	OriginGCPKMS   Origin = "gcpkms"
	OriginWebAuthn Origin = "webauthn"
	OriginFile     Origin = "file" // test registries only
)

// Document is a registry document. Its canonical bytes are what the statement
// names; fields stand in the order of their JSON names.
type Document struct {
	Approvers  []Approver       `json:"approvers"`
	CI         []Person         `json:"ci"`
	IssuedAt   envelope.Time    `json:"issuedAt"`
	Kernel     KernelKeys       `json:"kernel"`
	KernelID   envelope.ID      `json:"kernelId"`
	Previous   *envelope.Digest `json:"previous,omitzero"`
	Requestors []Person         `json:"requestors"`
	Retired    []RetiredKey     `json:"retired"`
	Rules      Rules            `json:"rules"`
	Test       bool             `json:"test,omitzero"`
	Version    int64            `json:"version"`
}

// Approver is one of the pool.
type Approver struct {
	ID   envelope.ID `json:"id"`
	Keys []Key       `json:"keys"`
	Name string      `json:"name"` // Text(80)
	Role Role        `json:"role"`
}

// Person is a requestor or a CI system.
type Person struct {
	ID   envelope.ID `json:"id"`
	Keys []Key       `json:"keys"`
	Name string      `json:"name"` // Text(80)
}

// KernelKeys are the Kernel's own: for records, and (Ed25519) for the audit log.
type KernelKeys struct {
	Audit   []Key `json:"audit"`
	Records []Key `json:"records"`
}

// Rules are the settings that the quorum chose.
type Rules struct {
	ApprovalTTLSeconds        int64            `json:"approvalTtlSeconds"`
	MinNonBrowserApprovals    int64            `json:"minNonBrowserApprovals"`
	PolicyDigest              *envelope.Digest `json:"policyDigest,omitzero"`
	RatificationWindowSeconds int64            `json:"ratificationWindowSeconds"`
	SeparationOfDuties        bool             `json:"separationOfDuties"`
}

// DefaultRules are PROTOCOL section 5's for a new registry.
func DefaultRules() Rules {
	return Rules{ApprovalTTLSeconds: 14 * 86400, RatificationWindowSeconds: 48 * 3600}
}

// RetiredKey is a key that once counted and never will again.
type RetiredKey struct {
	Holder envelope.ID    `json:"holder"`
	KeyID  envelope.KeyID `json:"keyId"`
}

// Key is one key's entry.
type Key struct {
	Algorithm signer.Algorithm     `json:"algorithm"`
	KeyID     envelope.KeyID       `json:"keyId"`
	NotAfter  envelope.Time        `json:"notAfter"`  // inside
	NotBefore envelope.Time        `json:"notBefore"` // inside
	Origin    Origin               `json:"origin"`
	PublicKey []byte               `json:"publicKey"` // DER SubjectPublicKeyInfo
	WebAuthn  *webauthn.Credential `json:"webauthn,omitzero"`

	public signer.PublicKey // parsed from PublicKey
}

// NewKey is an entry for a public key, for enrolment.
func NewKey(public signer.PublicKey, algorithm signer.Algorithm, origin Origin, notBefore, notAfter envelope.Time) Key {
	return Key{
		Algorithm: algorithm, KeyID: envelope.KeyID(public.KeyID()), Origin: origin,
		NotBefore: notBefore, NotAfter: notAfter, PublicKey: public.DER(), public: public,
	}
}

// Public is the parsed key. It is the zero value unless the entry came from
// NewKey or out of a document that was checked.
func (k *Key) Public() signer.PublicKey { return k.public }

// ValidAt reports whether t is inside the key's validity.
func (k *Key) ValidAt(t envelope.Time) bool { return !t.Before(k.NotBefore) && !t.After(k.NotAfter) }

// sameEntry reports whether both entries are one key's, whatever its validity.
func (k *Key) sameEntry(o *Key) bool {
	same := k.KeyID == o.KeyID && k.Algorithm == o.Algorithm && k.Origin == o.Origin &&
		string(k.PublicKey) == string(o.PublicKey) && (k.WebAuthn == nil) == (o.WebAuthn == nil)
	if !same || k.WebAuthn == nil {
		return same
	}
	a, b := k.WebAuthn, o.WebAuthn
	same = a.CredentialID == b.CredentialID && a.RPID == b.RPID && len(a.Origins) == len(b.Origins)
	for i := 0; same && i < len(a.Origins); i++ {
		same = a.Origins[i] == b.Origins[i]
	}
	return same
}
