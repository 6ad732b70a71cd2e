package workflow

import (
	"context"
	"errors"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Policy says whether an upgrade breaks a rule. An error is a denial, and its
// text is shown as the reason.
type Policy interface {
	Evaluate(ctx context.Context, input upgrade.PolicyInput) (upgrade.PolicyVerdict, error)
	// Engine names the engine and version, Text(80); Digest names the policy.
	Engine() string
	Digest() envelope.Digest
}

// Pure is a policy whose answer depends on its input alone.
type Pure interface {
	Policy
	Pure()
}

// Opaque is a policy whose rules cannot be seen from here, such as a server's:
// its digest is the operator's word. It cannot be used where the registry pins
// a policy.
type Opaque interface {
	Policy
	Opaque()
}

// Artifacts is the content-addressed store of artifacts.
type Artifacts interface {
	// Put stores what r yields under its SHA-256, hashed while written, and is
	// durable when it returns. The same content twice is no error.
	Put(ctx context.Context, r io.Reader) (digest envelope.Digest, size int64, err error)
	// Open reads an artifact; the reader fails with ErrArtifactCorrupt at its
	// end when the bytes are not the digest's. ErrNotFound where there is none.
	Open(ctx context.Context, digest envelope.Digest) (r io.ReadCloser, size int64, err error)
}

// Deployer changes one kind of target. Apply is idempotent and compare-and-swap:
// where change.Patch is live already it does nothing, where something else
// than change.Base is live it returns ErrBaseMoved and changes nothing.
type Deployer interface {
	// Live asks the target what is live: the patchHash, or upgrade.None.
	Live(ctx context.Context, target envelope.ID) (upgrade.Revision, error)
	Apply(ctx context.Context, change Change) error
}

// Change is one authorised step of a target from one revision to the next.
type Change struct {
	UpgradeID envelope.UUID
	Target    upgrade.Target
	Base      upgrade.Revision
	Patch     envelope.Digest
	Record    []byte // the AppliedUpgradeRecord's envelope, for deployers that hand it on
	// Artifact opens the patch's bytes, verified while they are read.
	Artifact func(ctx context.Context) (io.ReadCloser, error)
}

// Canary measures a target: before an apply, for its baseline, and after it,
// against the limits that its configuration sets. Both block for their window;
// after a restart the engine begins the window anew.
type Canary interface {
	// Baseline is the report of the target as it is; nil where nothing is
	// configured to watch the target.
	Baseline(ctx context.Context, target envelope.ID) (report []byte, err error)
	// Watch judges the target after the apply, against limits and baseline.
	Watch(ctx context.Context, target envelope.ID, baseline []byte) (CanaryResult, error)
}

// CanaryResult is how a canary ended. Inconclusive means too few samples by
// the window's end, and counts as failed.
type CanaryResult struct {
	Passed       bool
	Inconclusive bool
	Codes        []string // short codes of what failed, such as error_rate or p99; for the log
	Report       []byte   // canonical JSON: the checks, their windows and numbers; nil where nothing is watched
}

// Guard is the process that can use the Kernel's keys (PROTOCOL section 11). It
// judges each case itself. A refusal is a failure.Error and is final for that
// request; anything else wraps ErrGuardUnavailable and may be asked again.
type Guard interface {
	Status(ctx context.Context) (GuardStatus, error)
	AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error
	Suspend(ctx context.Context, suspension envelope.Envelope) error
	// DelegateEventKey signs for an event key, DER SubjectPublicKeyInfo, valid
	// for at most 86400 s from now.
	DelegateEventKey(ctx context.Context, publicKey []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error)
	// SignCheckpoint signs the tree's state; consistency is the RFC 6962 proof
	// from the last checkpoint that the guard signed.
	SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (note string, err error)
	// SignRecord's proof is of the sealed upgrade.applying event that names the
	// bundle, SignRatification's of upgrade.ratified.
	SignRecord(ctx context.Context, bundle upgrade.QuorumBundle, proof LogProof) (envelope.Envelope, error)
	SignRatification(ctx context.Context, bundle upgrade.QuorumBundle, proof LogProof) (envelope.Envelope, error)
	// SignRollback signs the Kernel's own rollback manifest. The proof is of
	// upgrade.canary_failed; nil where an emergency's ratifyBy has passed.
	SignRollback(ctx context.Context, manifest upgrade.Manifest, proof *LogProof) (envelope.Envelope, error)
	// Outcome tells a sealed upgrade.applied or upgrade.apply_failed.
	Outcome(ctx context.Context, proof LogProof) error
	// Probe makes a test signature with each key, and keeps it.
	Probe(ctx context.Context) error
}

// GuardStatus is what a guard says of itself.
type GuardStatus struct {
	KernelID        envelope.ID     `json:"kernelId,omitzero"`
	RegistryVersion int64           `json:"registryVersion"`
	RegistryDigest  envelope.Digest `json:"registryDigest"`
	CheckpointSize  int64           `json:"checkpointSize"`
	Ready           bool            `json:"ready"`
	Reason          string          `json:"reason"`     // why it is not ready
	Signatures      int64           `json:"signatures"` // the sum of Counts
	Counts          GuardCounts     `json:"counts"`
}

// GuardCounts are the signatures that a guard gave away, by kind, to be
// compared with the log's events. They are as durable as the signatures; a
// rebuilt memory counts what the log shows, and checkpoints from then on.
type GuardCounts struct {
	Records       int64 `json:"records"`
	Ratifications int64 `json:"ratifications"`
	Rollbacks     int64 `json:"rollbacks"` // the Kernel's rollback manifests
	Delegations   int64 `json:"delegations"`
	Checkpoints   int64 `json:"checkpoints"`
}

// Sum is all of them.
func (c GuardCounts) Sum() int64 {
	return c.Records + c.Ratifications + c.Rollbacks + c.Delegations + c.Checkpoints
}

// Witnesses have the newest checkpoint of the store cosigned. Cosign returns
// nil once enough have. An error of the class audit_fork says that one of them
// has seen another log, and stops the engine; any other says to ask again.
type Witnesses interface {
	Cosign(ctx context.Context) error
}

// LogProof is one event in a checkpoint that the guard signed.
type LogProof struct {
	Checkpoint string         `json:"checkpoint"`
	Entry      auditlog.Entry `json:"entry"`
}

// What ports report. Adapters wrap these.
var (
	ErrNotFound        = errors.New("not found")
	ErrArtifactCorrupt = errors.New("artifact's bytes are not those that its digest names")
	ErrArtifactTooBig  = errors.New("artifact is larger than the limit")
	// ErrBaseMoved: the target is neither at the base nor at the patch.
	ErrBaseMoved = errors.New("target is no longer at the base revision")
	// ErrUnsafeArtifact: the artifact will never be deployed: a path outside
	// its root, a link out of it, a device, too many or too large files.
	ErrUnsafeArtifact = errors.New("artifact is not safe to unpack")
	// ErrGuardUnavailable: the guard does not answer, is not initialised, or
	// its device is away. Ask again with the same request.
	ErrGuardUnavailable = errors.New("guard unavailable")
	// ErrStoreUnavailable: the database does not answer. Send the same again.
	ErrStoreUnavailable = errors.New("database unavailable")
	// ErrUnknownTarget: no deployer is configured for the target.
	ErrUnknownTarget = errors.New("no such target is configured")
	// ErrTargetUnavailable: the target does not say what is live. Send the same again.
	ErrTargetUnavailable = errors.New("the target does not say what is live")
)
