// Package api is the gateway's HTTP API: docs/openapi.yaml on echo. Handlers
// parse, ask the engine, and translate its errors; they decide nothing about
// authority, which is only ever in signatures.
package api

import (
	"context"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../../../docs/openapi.yaml

// Kind names what a record is, after its payload type.
type Kind string

// The kinds of records that are submitted. Registry entries have their own path.
const (
	KindManifest         Kind = "manifest"
	KindApproval         Kind = "approval"
	KindRejection        Kind = "rejection"
	KindTestRequest      Kind = "test-request"
	KindTestResult       Kind = "test-result"
	KindEmergencyTrigger Kind = "emergency-trigger"
	KindKeySuspension    Kind = "key-suspension"
)

// kinds are the payload types that POST /v1/records takes.
var kinds = map[string]Kind{
	envelope.TypeManifest:         KindManifest,
	envelope.TypeApproval:         KindApproval,
	envelope.TypeRejection:        KindRejection,
	envelope.TypeTestRequest:      KindTestRequest,
	envelope.TypeInToto:           KindTestResult,
	envelope.TypeEmergencyTrigger: KindEmergencyTrigger,
	envelope.TypeKeySuspension:    KindKeySuspension,
}

// Engine is what the API asks of the workflow. Besides failure classes its
// errors are workflow.ErrNotFound, workflow.ErrConflict (whose text is shown)
// and workflow.ErrGuardUnavailable; any other is answered as internal and only
// logged.
type Engine interface {
	Reader
	// Submit verifies a record and takes it in. The same record again is no
	// error: its receipt says that nothing was added.
	Submit(ctx context.Context, kind Kind, env envelope.Envelope) (Receipt, error)
	// RequestApprovals opens a draft for approvals; once open it does nothing.
	// actor is the token's holder.
	RequestApprovals(ctx context.Context, id envelope.UUID, actor envelope.ID) (Upgrade, error)
	// AcceptRegistry puts the next document into force; the one in force is no
	// error.
	AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error
	// Preview is what the policy would say about a manifest; nothing is stored.
	Preview(ctx context.Context, m upgrade.Manifest) (PolicyPreview, error)
}

// Reader is what the API shows.
type Reader interface {
	Upgrade(ctx context.Context, id envelope.UUID) (UpgradeDetail, error)
	Upgrades(ctx context.Context, q Query) (UpgradePage, error)
	// Bundle is the bundle file of an applied upgrade, in its exact bytes.
	Bundle(ctx context.Context, id envelope.UUID) ([]byte, error)
	UpgradeEvents(ctx context.Context, id envelope.UUID) ([]Event, error)
	// Events are at most limit events from a seq on.
	Events(ctx context.Context, from int64, limit int) ([]Event, error)
	// LogSize is the seq of the next event.
	LogSize(ctx context.Context) (int64, error)
	// Target is what is live at a target; one never seen is at "none".
	Target(ctx context.Context, name envelope.ID) (Target, error)
	// Registry is the chain, and the suspensions under its last document.
	Registry(ctx context.Context) (RegistryChain, error)
	// Checkpoint is the newest signed note.
	Checkpoint(ctx context.Context) (string, error)
}

// Query selects a page of upgrades; empty members select all.
type Query struct {
	States []State
	Target envelope.ID
	Cursor string
	Limit  int // 1 to 200
}
