// Package failure names why an input was refused: the failure classes of
// PROTOCOL section 12, as errors that keep their class through wrapping.
//
// It is the lowest package of the house; every verdict in it speaks these classes.
package failure

import (
	"errors"
	"fmt"
)

// Class is one failure class of PROTOCOL section 12. The text is stable: it
// stands in verdicts, in API problems and in audit events.
type Class string

// The classes of PROTOCOL section 12.
const (
	EnvelopeMalformed       Class = "envelope_malformed"
	PayloadMalformed        Class = "payload_malformed"
	PayloadNotCanonical     Class = "payload_not_canonical"
	WrongPayloadType        Class = "wrong_payload_type"
	FieldInvalid            Class = "field_invalid"
	KeyUnknown              Class = "key_unknown"
	KeyNotOfPerson          Class = "key_not_of_person"
	KeySuspended            Class = "key_suspended"
	KeyOutsideValidity      Class = "key_outside_validity"
	SignatureInvalid        Class = "signature_invalid"
	WebAuthnInvalid         Class = "webauthn_invalid"
	RoleNotAllowed          Class = "role_not_allowed"
	DuplicatePerson         Class = "duplicate_person"
	QuorumNotMet            Class = "quorum_not_met"
	ApprovalStale           Class = "approval_stale"
	TimeInvalid             Class = "time_invalid"
	BindingMismatch         Class = "binding_mismatch"
	RegistryRootMismatch    Class = "registry_root_mismatch"
	RegistryChainBroken     Class = "registry_chain_broken"
	RegistryThresholdNotMet Class = "registry_threshold_not_met"
	RegistryKeyReused       Class = "registry_key_reused"
	RegistryInvalid         Class = "registry_invalid"
	PolicyDenied            Class = "policy_denied"
	TestsNotMet             Class = "tests_not_met"
	BaseRevisionMoved       Class = "base_revision_moved"
	ArtifactMismatch        Class = "artifact_mismatch"
	BundleMismatch          Class = "bundle_mismatch"
	KernelSignatureInvalid  Class = "kernel_signature_invalid"
	AlreadySigned           Class = "already_signed"
	EmergencyNotAllowed     Class = "emergency_not_allowed"
	RatificationLate        Class = "ratification_late"
	NotYetDue               Class = "not_yet_due"
	AuditChainBroken        Class = "audit_chain_broken"
	AuditProofInvalid       Class = "audit_proof_invalid"
	AuditFork               Class = "audit_fork"
)

// Error is a refusal: its class, and one sentence for people.
type Error struct {
	Class  Class
	Detail string
	Err    error // the cause; may be nil
}

// Error is the class and the detail, "class: detail".
func (e *Error) Error() string { return string(e.Class) + ": " + e.Detail }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// New is a refusal with a formatted detail; %w keeps a cause.
func New(class Class, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Class: class, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// As gives err the class, unless err already has one: the first, most exact
// name of a failure is kept.
func As(class Class, err error) error {
	if err == nil || ClassOf(err) != "" {
		return err
	}
	return &Error{Class: class, Detail: err.Error(), Err: err}
}

// Reclass gives err the class whatever class it had, and keeps its detail.
func Reclass(class Class, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Class: class, Detail: DetailOf(err), Err: err}
}

// ClassOf is the class of the outermost Error in err's chain, "" where there is none.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

// DetailOf is the sentence for people without the class before it.
func DetailOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}
