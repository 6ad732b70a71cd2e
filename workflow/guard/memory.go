package guard

import (
	"bytes"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// memory is what the guard must never forget (PROTOCOL section 11). It changes
// by apply alone, once the change is on the disk. What it points to is shared
// with changes, and is never altered in place.
type memory struct {
	clock       envelope.Time // the highest that was used
	registry    []keyregistry.SignedDocument
	regs        keyregistry.Chain
	suspensions []envelope.Envelope // under the newest document
	suspended   map[envelope.KeyID]bool
	eventKeys   map[envelope.KeyID]eventKeyMemory
	last        checkpointMemory
	recent      []checkpointMemory // the newest that were signed, oldest first
	stale       string             // why it is known to be behind; empty while it is not
	counts      workflow.GuardCounts
	targets     map[envelope.ID]targetMemory
	upgrades    map[envelope.UUID]*signedMemory
	// rollbacks finds what a rollback manifest of the Kernel takes back, by the
	// rollback's own upgradeId.
	rollbacks map[envelope.UUID]envelope.UUID
}

// checkpointMemory is one state of the log that was signed.
type checkpointMemory struct {
	Size int64  `json:"size"`
	Root []byte `json:"root"`
}

func (c checkpointMemory) is(o auditlog.Checkpoint) bool {
	return c.Size == o.Size && tlog.Hash(c.Root) == o.Root
}

// same: asked again for one state, the guard does not forget another for it.
func (c checkpointMemory) same(o checkpointMemory) bool {
	return c.Size == o.Size && bytes.Equal(c.Root, o.Root)
}

type eventKeyMemory struct {
	Delegation envelope.Envelope `json:"delegation"`
	key        auditlog.EventKey
}

// targetMemory is what is live at a target, as far as signatures say.
type targetMemory struct {
	Name        envelope.ID      `json:"name"`
	Live        upgrade.Revision `json:"live"`
	LiveUpgrade envelope.UUID    `json:"liveUpgrade,omitzero"`
	// Open are emergencies that were neither ratified nor followed by a record
	// with a quorum, those whose deploy failed among them.
	Open []envelope.UUID `json:"open,omitzero"`
}

// signedMemory is all that was signed for one upgrade, or about it. Of the
// manifest it has what later cases are judged by.
type signedMemory struct {
	UpgradeID      envelope.UUID       `json:"upgradeId"`
	Type           upgrade.Type        `json:"type"`
	Target         envelope.ID         `json:"target"`
	PatchHash      envelope.Digest     `json:"patchHash"`
	BaseRevision   upgrade.Revision    `json:"baseRevision"`
	Cost           *upgrade.Cost       `json:"cost,omitzero"`
	ManifestDigest envelope.Digest     `json:"manifestDigest"`
	Signed         envelope.Digest     `json:"signed"` // of the manifest's whole envelope
	BundleDigest   envelope.Digest     `json:"bundleDigest"`
	RecordDigest   envelope.Digest     `json:"recordDigest"`    // of the payload, which is what the case composes
	Record         *envelope.Envelope  `json:"record,omitzero"` // nil: the log says only that it may have been signed
	DecidedAt      envelope.Time       `json:"decidedAt"`
	RatifyBy       *envelope.Time      `json:"ratifyBy,omitzero"`
	Previous       upgrade.Revision    `json:"previous"`
	PreviousID     envelope.UUID       `json:"previousId,omitzero"`
	Outcome        string              `json:"outcome,omitzero"` // the event type; empty while unknown
	CanaryFailed   bool                `json:"canaryFailed,omitzero"`
	Ratification   *ratificationMemory `json:"ratification,omitzero"`
	Rollback       *envelope.Envelope  `json:"rollback,omitzero"` // the Kernel's rollback manifest
}

type ratificationMemory struct {
	BundleDigest envelope.Digest    `json:"bundleDigest"`
	Record       *envelope.Envelope `json:"record,omitzero"` // nil as above
}

// change is one step of the memory: the new value of each thing that it names.
// A snapshot is a list of changes, too.
type change struct {
	Clock      envelope.Time               `json:"clock"`
	Registry   *keyregistry.SignedDocument `json:"registry,omitzero"`
	Suspension *envelope.Envelope          `json:"suspension,omitzero"`
	EventKey   *envelope.Envelope          `json:"eventKey,omitzero"`
	Checkpoint *checkpointMemory           `json:"checkpoint,omitzero"`
	Stale      *string                     `json:"stale,omitzero"`
	Counts     *workflow.GuardCounts       `json:"counts,omitzero"`
	Target     *targetMemory               `json:"target,omitzero"`
	Upgrade    *signedMemory               `json:"upgrade,omitzero"`
}

const (
	// recentCheckpoints is how many checkpoints are known by themselves, and
	// not by a key of the registry in force.
	recentCheckpoints = 64
	// eventKeyKept is how long, in seconds, an event key is known after its
	// end: events that it signed in time may be shown later.
	eventKeyKept = 30 * 86400
	// maxEventKeys bounds the event keys that are known at one time.
	maxEventKeys = 4096
)

func newMemory() *memory {
	return &memory{
		suspended: map[envelope.KeyID]bool{}, eventKeys: map[envelope.KeyID]eventKeyMemory{}, last: checkpointMemory{Root: make([]byte, tlog.HashSize)},
		targets: map[envelope.ID]targetMemory{}, upgrades: map[envelope.UUID]*signedMemory{}, rollbacks: map[envelope.UUID]envelope.UUID{},
	}
}

// apply takes a change over. An error means that the change is not one that
// the guard writes.
func (m *memory) apply(root envelope.Digest, c *change) error {
	if c.Clock.After(m.clock) {
		m.clock = c.Clock
	}
	if c.Registry != nil {
		if err := m.applyRegistry(root, *c.Registry); err != nil {
			return err
		}
	}
	if c.Suspension != nil {
		if err := m.applySuspension(*c.Suspension); err != nil {
			return err
		}
	}
	if c.EventKey != nil {
		key, err := auditlog.OpenDelegation(*c.EventKey)
		if err != nil {
			return err
		}
		m.forgetEventKeys()
		m.eventKeys[key.EventKeyID] = eventKeyMemory{*c.EventKey, key}
	}
	if c.Checkpoint != nil {
		if len(c.Checkpoint.Root) != tlog.HashSize {
			return errDamaged("a checkpoint's root is malformed")
		}
		if !slices.ContainsFunc(m.recent, c.Checkpoint.same) {
			m.recent = append(m.recent, *c.Checkpoint)
			m.recent = m.recent[max(0, len(m.recent)-recentCheckpoints):]
		}
		m.last = *c.Checkpoint
	}
	if c.Stale != nil {
		m.stale = *c.Stale
	}
	if c.Counts != nil {
		m.counts = *c.Counts
	}
	if c.Target != nil {
		m.targets[c.Target.Name] = *c.Target
	}
	if c.Upgrade == nil {
		return nil
	}
	return m.applyUpgrade(c.Upgrade)
}

func (m *memory) applyRegistry(root envelope.Digest, entry keyregistry.SignedDocument) error {
	var last *keyregistry.Registry
	if len(m.regs) > 0 {
		last = m.regs.Last()
	}
	next, err := keyregistry.Accept(last, root, entry)
	if err != nil {
		return err
	}
	m.registry, m.regs = append(m.registry, entry), append(m.regs, next)
	// A suspension holds while the document that it names is in force.
	m.suspensions, m.suspended = nil, map[envelope.KeyID]bool{}
	return nil
}

func (m *memory) applySuspension(env envelope.Envelope) error {
	var s keyregistry.Suspension
	if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &s); err != nil {
		return err
	}
	m.suspensions = append(m.suspensions, env)
	m.suspended[s.SuspendedKeyID] = true
	return nil
}

func (m *memory) applyUpgrade(u *signedMemory) error {
	m.upgrades[u.UpgradeID] = u
	if u.Rollback == nil {
		return nil
	}
	manifest, err := upgrade.OpenManifest(*u.Rollback)
	if err != nil {
		return err
	}
	m.rollbacks[manifest.UpgradeID] = u.UpgradeID
	return nil
}

// forgetEventKeys drops keys whose events can no longer be news.
func (m *memory) forgetEventKeys() {
	for id, k := range m.eventKeys {
		if m.clock.Sub(k.key.NotAfter) > eventKeyKept {
			delete(m.eventKeys, id)
		}
	}
}

// clone is the memory as it is now, to be read while the memory goes on.
func (m *memory) clone() *memory {
	c := *m
	c.suspended, c.eventKeys, c.targets = nil, maps.Clone(m.eventKeys), maps.Clone(m.targets)
	c.upgrades, c.rollbacks = maps.Clone(m.upgrades), nil
	return &c
}

// changes is the whole memory, as a snapshot has it.
func (m *memory) changes(yield func(*change) bool) {
	send := func(c change) bool {
		c.Clock = m.clock
		return yield(&c)
	}
	for i := range m.registry {
		if !send(change{Registry: &m.registry[i]}) {
			return
		}
	}
	for i := range m.suspensions {
		if !send(change{Suspension: &m.suspensions[i]}) {
			return
		}
	}
	m.forgetEventKeys()
	for _, k := range m.eventKeys {
		if !send(change{EventKey: &k.Delegation}) {
			return
		}
	}
	for i := range m.recent {
		if !send(change{Checkpoint: &m.recent[i]}) {
			return
		}
	}
	if !send(change{Counts: &m.counts, Stale: &m.stale}) {
		return
	}
	for _, t := range m.targets {
		if !send(change{Target: &t}) {
			return
		}
	}
	for _, u := range m.upgrades {
		if !send(change{Upgrade: u}) {
			return
		}
	}
}

// target is a copy of what is known of a target.
func (m *memory) target(name envelope.ID) targetMemory {
	t, ok := m.targets[name]
	if !ok {
		return targetMemory{Name: name, Live: upgrade.None}
	}
	t.Open = slices.Clone(t.Open)
	return t
}

func (t *targetMemory) close(id envelope.UUID) {
	t.Open = slices.DeleteFunc(t.Open, func(o envelope.UUID) bool { return o == id })
	if len(t.Open) == 0 {
		t.Open = nil
	}
}

// checkpoint is the last state of the log that was signed.
func (m *memory) checkpoint() auditlog.Checkpoint {
	return auditlog.Checkpoint{Origin: auditlog.Origin(m.regs.Last().KernelID()), Size: m.last.Size, Root: tlog.Hash(m.last.Root)}
}
