package workflow

import (
	"context"
	"errors"
	"io"

	"github.com/kernelgate/kernelgate/signer/envelope"
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
	// ErrUnknownTarget: no deployer is configured for the target.
	ErrUnknownTarget = errors.New("no such target is configured")
)
