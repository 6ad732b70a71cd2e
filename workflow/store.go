package workflow

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// State is where an upgrade is. docs/state-machine.md draws what leads where.
type State string

// The states of an upgrade.
const (
	StateDraft             State = "draft"
	StatePaused            State = "paused"
	StatePendingApproval   State = "pending_approval"
	StateQuorumReached     State = "quorum_reached"
	StateApplying          State = "applying"
	StateApplied           State = "applied"
	StateValidating        State = "validating"
	StateCompleted         State = "completed"
	StateRejected          State = "rejected"
	StateExpired           State = "expired"
	StateRolledBack        State = "rolled_back"
	StateEmergencyApplied  State = "emergency_applied"
	StateRollbackScheduled State = "rollback_scheduled"
	StateApplyFailed       State = "apply_failed"
)

// Upgrade is one upgrade's row: what may change. All that people and the
// Kernel signed stands in its records, which never do.
type Upgrade struct {
	ID             envelope.UUID
	Target         envelope.ID
	Type           upgrade.Type
	State          State
	ManifestDigest envelope.Digest
	ProposedBy     envelope.ID
	CreatedAt      envelope.Time
	UpdatedAt      envelope.Time
	NextAt         *envelope.Time // when the engine has work with it; nil: when somebody acts
	ExpiresAt      envelope.Time
	Reason         string // why it is where it is, for people
	BundleDigest   envelope.Digest
	Version        int64
}

// Record is something signed, or a decision, that belongs to one upgrade.
type Record struct {
	Digest     envelope.Digest // of the payload; a record's identity
	UpgradeID  envelope.UUID
	Kind       string // manifest, approval, rejection, test-request, test-result, emergency-trigger, policy-decision, quorum-bundle, applied-record, ratification
	Person     envelope.ID
	SignedAt   envelope.Time
	ReceivedAt envelope.Time
	Seq        int64  // order of receipt; set by the store
	Body       []byte // the envelope's or the object's canonical bytes
}

// Target is what is live somewhere, as the gateway knows it.
type Target struct {
	Name        envelope.ID
	Live        upgrade.Revision
	LiveUpgrade envelope.UUID // empty before the first
	Applying    envelope.UUID // empty while none is
}

// StoredEvent is one event of the log.
type StoredEvent struct {
	Seq   int64
	Leaf  []byte
	Event auditlog.Event
	Hash  envelope.Digest
}

// EventDraft is an event before the store chains and signs it.
type EventDraft struct {
	Type      string
	UpgradeID envelope.UUID
	Actor     envelope.ID
	Data      auditlog.Data
}

// Page asks for upgrades: of any of the states, at one target; empty means all.
type Page struct {
	States []State
	Target envelope.ID
	Cursor string
	Limit  int
}

// Reader reads one consistent state of the store. What is not there is ErrNotFound.
type Reader interface {
	Upgrade(id envelope.UUID) (Upgrade, error)
	Upgrades(page Page) (list []Upgrade, next string, err error)
	Due(now envelope.Time, limit int) ([]Upgrade, error)
	Records(id envelope.UUID) ([]Record, error) // in order of receipt
	Record(digest envelope.Digest) (Record, error)
	Target(name envelope.ID) (Target, error) // one never seen is at upgrade.None
	Registry() ([]keyregistry.SignedDocument, error)
	Suspensions(registryDigest envelope.Digest) ([]envelope.Envelope, error)

	Events(from int64, limit int) ([]StoredEvent, error)
	UpgradeEvents(id envelope.UUID) ([]StoredEvent, error)
	Checkpoint() (note string, size int64, err error) // the last
	LogSize() (int64, error)
	TreeRoot(size int64) (tlog.Hash, error)
	InclusionProof(index, size int64) ([][]byte, error)
	ConsistencyProof(oldSize, newSize int64) ([][]byte, error)
	// Cursor is the seq of the event that a follower of the log takes next; 0
	// for one never heard of.
	Cursor(follower string) (next int64, err error)
}

// Tx is a write transaction.
type Tx interface {
	Reader
	PutUpgrade(u Upgrade) error
	// AddRecord stores a record once: added is false where its digest is known.
	AddRecord(r Record) (added bool, err error)
	PutTarget(t Target) error
	AddRegistry(version int64, entry keyregistry.SignedDocument) error
	AddSuspension(env envelope.Envelope, registryDigest envelope.Digest) error
	AppendEvent(draft EventDraft) (StoredEvent, error)
	PutCheckpoint(note string, size int64) error
	PutCursor(follower string, next int64) error
}

// Store keeps the workflow's state, the records and the log. What Update did
// is durable when it returns nil, and undone when it returns an error.
type Store interface {
	Update(ctx context.Context, f func(Tx) error) error
	View(ctx context.Context, f func(Reader) error) error
}
