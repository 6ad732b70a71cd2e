// Package auditlog is the audit log's form and proofs (PROTOCOL section 10):
// events, the event keys that sign them, RFC 6962 leaves and checkpoints. It is
// pure; the tables that hold a log are storage's.
package auditlog

import (
	"bytes"
	"context"
	"encoding/base64"
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// The event types of PROTOCOL section 10.
const (
	UpgradeCreated            = "upgrade.created"
	UpgradeTestsReported      = "upgrade.tests_reported"
	UpgradePaused             = "upgrade.paused"
	UpgradePendingApproval    = "upgrade.pending_approval"
	UpgradeTestsRequested     = "upgrade.tests_requested"
	ApprovalSubmitted         = "approval.submitted"
	ApprovalRejected          = "approval.rejected"
	ApprovalInvalid           = "approval.invalid"
	ApprovalStale             = "approval.stale"
	UpgradeQuorumReached      = "upgrade.quorum_reached"
	UpgradeApplying           = "upgrade.applying"
	UpgradeApplied            = "upgrade.applied"
	UpgradeApplyFailed        = "upgrade.apply_failed"
	UpgradeEmergencyApplied   = "upgrade.emergency_applied"
	UpgradeRatified           = "upgrade.ratified"
	UpgradeRatificationFailed = "upgrade.ratification_failed"
	UpgradeCanaryPassed       = "upgrade.canary_passed"
	UpgradeCanaryFailed       = "upgrade.canary_failed"
	UpgradeRollback           = "upgrade.rollback"
	UpgradeCompleted          = "upgrade.completed"
	UpgradeRejected           = "upgrade.rejected"
	UpgradeExpired            = "upgrade.expired"
	RegistryUpdated           = "registry.updated"
	RegistryKeySuspended      = "registry.key_suspended"
	KeyDelegated              = "audit.key_delegated"
	GuardDenied               = "guard.denied"
)

// KnownType reports whether PROTOCOL section 10 lists the type. A log may hold
// others, of a later version: they are history, and prove nothing else.
func KnownType(t string) bool {
	switch t {
	case UpgradeCreated, UpgradeTestsReported, UpgradePaused, UpgradePendingApproval, UpgradeTestsRequested,
		ApprovalSubmitted, ApprovalRejected, ApprovalInvalid, ApprovalStale, UpgradeQuorumReached,
		UpgradeApplying, UpgradeApplied, UpgradeApplyFailed, UpgradeEmergencyApplied, UpgradeRatified,
		UpgradeRatificationFailed, UpgradeCanaryPassed, UpgradeCanaryFailed, UpgradeRollback, UpgradeCompleted,
		UpgradeRejected, UpgradeExpired, RegistryUpdated, RegistryKeySuspended, KeyDelegated, GuardDenied:
		return true
	}
	return false
}

// The names of members of an event's data.
const (
	DataRecordDigest = "recordDigest" // the digest of the record that the event is about
	DataBundleDigest = "bundleDigest" // of upgrade.applying and upgrade.ratified
	DataSpent        = "spent"        // of upgrade.applying: what the gateway counts as spent at the target in the decision's month, ["EUR=120000"]
	DataDelegation   = "delegation"   // base64 of the event-key envelope, of audit.key_delegated
)

// MaxLeaf is the most bytes that a leaf may have: an entry of C2SP tlog-tiles
// tells its length in 16 bits.
const MaxLeaf = 1<<16 - 1

// Event is one event's payload.
type Event struct {
	Actor     envelope.ID     `json:"actor"`
	Data      Data            `json:"data"`
	KernelID  envelope.ID     `json:"kernelId"`
	KeyID     envelope.KeyID  `json:"keyId"`
	PrevHash  envelope.Digest `json:"prevHash"` // zero at seq 0
	Seq       int64           `json:"seq"`
	Time      envelope.Time   `json:"time"`
	Type      string          `json:"type"`
	UpgradeID envelope.UUID   `json:"upgradeId,omitzero"`
}

// Data is an event's data: string, int64 (an Int), bool or []string by name.
type Data map[string]any

// MarshalJSON writes the data with its names in order.
func (d Data) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(map[string]any(d), json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	value := jsontext.Value(data)
	return value, value.Canonicalize()
}

// UnmarshalJSON accepts exactly the kinds of values that data may have.
func (d *Data) UnmarshalJSON(b []byte) error {
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw == nil {
		return failure.New(failure.FieldInvalid, "data is not an object")
	}
	*d = make(Data, len(raw))
	for name, value := range raw {
		v, err := dataValue(value)
		if err != nil {
			return failure.New(failure.FieldInvalid, "data.%.80s: %w", name, err)
		}
		(*d)[name] = v
	}
	return nil
}

func dataValue(value jsontext.Value) (any, error) {
	switch value.Kind() {
	case '"':
		var s string
		return s, json.Unmarshal(value, &s)
	case 't', 'f':
		return value.Kind() == 't', nil
	case '0':
		var n int64
		if err := json.Unmarshal(value, &n); err != nil {
			return nil, err
		}
		return n, envelope.CheckInt("number", n, 0, envelope.MaxInt)
	case '[':
		list := []string{}
		var raw []jsontext.Value
		if err := json.Unmarshal(value, &raw); err != nil {
			return nil, err
		}
		for _, v := range raw {
			if v.Kind() != '"' {
				return nil, failure.New(failure.FieldInvalid, "lists hold strings only")
			}
		}
		return list, json.Unmarshal(value, &list)
	}
	return nil, failure.New(failure.FieldInvalid, "neither a string, an Int, a bool nor a list of strings")
}

// Text is the string of this name, "" where there is none.
func (d Data) Text(name string) string {
	s, _ := d[name].(string)
	return s
}

var eventType = regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)

func (e *Event) check() error {
	if err := envelope.CheckInt("seq", e.Seq, 0, envelope.MaxInt); err != nil {
		return err
	}
	if e.Seq == 0 && e.PrevHash != (envelope.Digest{}) {
		return failure.New(failure.AuditChainBroken, "the first event follows another")
	}
	if !eventType.MatchString(e.Type) {
		return failure.New(failure.FieldInvalid, "event type %.80q is malformed", e.Type)
	}
	return nil
}

var errTooLong = failure.New(failure.PayloadMalformed, "an event's leaf has more than %d bytes", MaxLeaf)

// SealEvent signs an event with its event key. Its leaf is the envelope's
// Bytes, its hash the envelope's PayloadDigest.
func SealEvent(ctx context.Context, s signer.Signer, e Event) (envelope.Envelope, error) {
	env, err := DraftEvent(s.Public(), e)
	if err != nil {
		return env, err
	}
	return env, SignEvent(ctx, s, &env)
}

// DraftEvent is an event's envelope before it is signed by the event key. Its
// hash, which the next event names, does not depend on the signature: a chain
// is made first, and signed on all cores.
func DraftEvent(key signer.PublicKey, e Event) (envelope.Envelope, error) {
	e.KeyID = envelope.KeyID(key.KeyID())
	if e.Data == nil {
		e.Data = Data{}
	}
	if err := e.check(); err != nil {
		return envelope.Envelope{}, err
	}
	payload, err := json.Marshal(e) // canonical: see decodeEvent
	if err != nil {
		return envelope.Envelope{}, failure.As(failure.PayloadMalformed, err)
	}
	if base64.StdEncoding.EncodedLen(len(payload))+aroundPayload > MaxLeaf {
		return envelope.Envelope{}, errTooLong
	}
	return envelope.Envelope{Payload: payload, PayloadType: envelope.TypeAuditEvent}, nil
}

// aroundPayload is more than what a leaf holds besides its payload, in bytes.
const aroundPayload = 512

// SignEvent signs what DraftEvent made.
func SignEvent(ctx context.Context, s signer.Signer, env *envelope.Envelope) error {
	sig, err := envelope.Sign(ctx, s, *env)
	env.Signatures = []envelope.Signature{sig}
	return err
}

// VerifyEvent checks an event's signature by a delegated event key, inside
// that key's validity.
func VerifyEvent(e Event, env envelope.Envelope, key EventKey) error {
	if e.KernelID != key.KernelID || e.KeyID != key.EventKeyID {
		return failure.New(failure.BindingMismatch, "the event is not of this Kernel and event key")
	}
	if e.Time.Before(key.NotBefore) || e.Time.After(key.NotAfter) {
		return failure.New(failure.KeyOutsideValidity, "event %d was signed at %s, outside the validity of its event key", e.Seq, e.Time)
	}
	if len(env.Signatures) != 1 || env.Signatures[0].WebAuthn != nil {
		return failure.New(failure.EnvelopeMalformed, "an event has one plain signature")
	}
	return signer.Verify(signer.Ed25519, key.Public, env.PAE(), env.Signatures[0].Sig)
}

// LeafHash is the RFC 6962 hash of a leaf.
func LeafHash(leaf []byte) tlog.Hash { return tlog.RecordHash(leaf) }

// Delegation is the event-key envelope that an audit.key_delegated event
// carries, in RFC 8785 form as all that stands in a leaf.
func (e Event) Delegation() (envelope.Envelope, error) {
	text := e.Data.Text(DataDelegation)
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return envelope.Envelope{}, failure.New(failure.FieldInvalid, "data.delegation is not base64")
	}
	env, err := envelope.Parse(raw)
	if err == nil && !bytes.Equal(env.Bytes(), raw) {
		return env, failure.New(failure.PayloadNotCanonical, "the envelope of data.delegation is not in RFC 8785 form")
	}
	return env, err
}
