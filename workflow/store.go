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
	Patch          envelope.Digest // the manifest's patchHash
	Intent         string          // the first line of the manifest's rationale
	Case           upgrade.Case    // under which case it is decided; empty means by quorum
	RatifyBy       *envelope.Time  // of an applied emergency
	RollbackID     envelope.UUID   // the Kernel's own rollback of it, once raised
	Ratifying      envelope.Digest // the ratification's bundle while the guard is asked about it
	Version        int64
}

// Record is something signed, or a decision, that belongs to one upgrade.
type Record struct {
	Digest     envelope.Digest // of the payload; a record's identity
	UpgradeID  envelope.UUID
	Kind       string // one of the Kind constants
	Person     envelope.ID
	SignedAt   envelope.Time
	ReceivedAt envelope.Time
	Patch      envelope.Digest // of test results alone: they belong to every upgrade with that patch
	Seq        int64           // order of receipt; set by the store
	Body       []byte          // the envelope's or the object's canonical bytes
}

// Target is what is live somewhere, as the gateway knows it.
type Target struct {
	Name        envelope.ID
	Live        upgrade.Revision
	LiveUpgrade envelope.UUID // empty before the first
	Applying    envelope.UUID // empty while none is
	// Emergencies were signed here and neither ratified nor followed by a record
	// with a quorum.
	Emergencies []envelope.UUID
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

// Page asks for upgrades: of any of the states, at one target, with one patch,
// with a text in intent, target, type, proposer or id (letter case does not
// count); empty means all.
type Page struct {
	States []State
	Target envelope.ID
	Patch  envelope.Digest
	Search string
	Cursor string
	Limit  int
}

// Reader reads one consistent state of the store. What is not there is ErrNotFound.
type Reader interface {
	Upgrade(id envelope.UUID) (Upgrade, error)
	Upgrades(page Page) (list []Upgrade, next string, err error)
	// Due are rows with work at or before now that nobody has claimed, as Claim
	// would see it with the same until.
	Due(now, until envelope.Time, limit int) ([]Upgrade, error)
	// Records are those of an upgrade and the test results of its patch, in
	// order of receipt. Those of no upgrade are Records("").
	Records(id envelope.UUID) ([]Record, error)
	Record(digest envelope.Digest) (Record, error)
	// NewestRecord is the seq of the last of Records(id), 0 where there is none:
	// while it and the row are the same, nothing of the upgrade has changed.
	NewestRecord(id envelope.UUID) (seq int64, err error)
	// RecordsBy are a person's newest records, at most limit, the newest first.
	RecordsBy(person envelope.ID, limit int) ([]Record, error)
	Target(name envelope.ID) (Target, error) // one never seen is at upgrade.None
	// Spent is what was applied at a target in a month, such as 2026-05, by
	// currency, sorted.
	Spent(target envelope.ID, month string) ([]upgrade.Cost, error)
	Registry() ([]keyregistry.SignedDocument, error)
	// NewestRegistry is the last document's version and bytes; 0 and nil where
	// there is none.
	NewestRegistry() (version int64, document []byte, err error)
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
	// PutUpgrade writes a row, and so ends the claim on it.
	PutUpgrade(u Upgrade) error
	// Claim takes due rows for one instance until a time, so that of many
	// engines on one store one works on a row. A claim by somebody else holds
	// until its end; one that reaches beyond until was made by a clock that has
	// been set back, and does not hold.
	Claim(now, until envelope.Time, instance string, limit int) ([]Upgrade, error)
	// Renew extends the instance's claim on a row. ErrNotFound where it has none.
	Renew(id envelope.UUID, instance string, until envelope.Time) error
	// Release gives up all of an instance's claims.
	Release(instance string) error
	// Wake makes every row in one of the states due.
	Wake(now envelope.Time, states []State) error
	// AddSpent adds to a month's sum, which stays at most envelope.MaxInt.
	AddSpent(target envelope.ID, month string, cost upgrade.Cost) error
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
// is durable when it returns nil, and undone when it returns an error. f may be
// called again, on the state as it is then, where a transaction was lost before
// it was committed; so what it leaves in its caller's variables must not depend
// on what an earlier call left there.
type Store interface {
	Update(ctx context.Context, f func(Tx) error) error
	View(ctx context.Context, f func(Reader) error) error
}
