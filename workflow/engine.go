package workflow

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// ErrConflict says that the upgrade is in a state, or the record of a kind, that does
// not go with what is asked. The text says why.
var ErrConflict = errors.New("conflict")

// rememberedSignatures is how many records' signatures, at least, are not
// verified again each time that their upgrade is looked at.
const rememberedSignatures = 1 << 14

// Config is what an engine is made of.
type Config struct {
	Store     Store
	Artifacts Artifacts
	Guard     Guard
	Policy    Policy
	Deployer  Deployer
	Clock     func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: slog.Default()
	Root      envelope.Digest  // pinned digest of the registry's version 1
	Canary    Canary           // nil: nothing is watched
	Instance  string           // Text(80), names this gateway in event keys and claims; no other has it
	// Admit says whether new work is taken: ErrHeld where not. nil: always.
	Admit func(ctx context.Context) error
	// Witnesses cosign checkpoints; nil: none are asked. With AwaitWitnesses an
	// upgrade is applied only after they have cosigned its upgrade.applying.
	Witnesses      Witnesses
	AwaitWitnesses bool
	// Heartbeat is how long the log may stand still before it is given a sign of
	// life; 0: an hour.
	Heartbeat time.Duration
	// SetEventKey hands the storage the key that signs events from now on.
	SetEventKey func(kernelID envelope.ID, s signer.Signer, delegation envelope.Envelope) error
}

// Engine takes upgrades from manifest to completion. It is safe for
// concurrent use; Run is called once.
type Engine struct {
	Config
	wake chan struct{}

	keyMu    sync.RWMutex // held for writing while the event key changes
	keyUntil envelope.Time

	asking  chan struct{} // holds one for each step that asks the guard
	sealing *shared
	grown   chan struct{} // has a value when the log may have grown

	cosigning *shared
	sealed    chan struct{} // has a value when there is a new checkpoint

	// Run's alone.
	healedAt   envelope.Time
	comparedAt envelope.Time
	beatAt     envelope.Time // when the log is looked at again for its newest event
	troubles   struct{ round, heal, seal, beat complaint }

	opened memory

	mu       sync.Mutex
	halted   error // why no work is done; nil while it is
	forked   bool  // no later look at the guard mends that
	regs     keyregistry.Chain
	inFlight map[envelope.UUID]*Upgrade // what is worked on; a row where it is to be taken up again
	attempts map[envelope.UUID]int
}

// New makes an engine. It does nothing until Run.
func New(c Config) *Engine {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	e := &Engine{Config: c, wake: make(chan struct{}, 1), sealed: make(chan struct{}, 1), grown: make(chan struct{}, 1), asking: make(chan struct{}, guardCalls), sealing: newShared(), cosigning: newShared(),
		inFlight: map[envelope.UUID]*Upgrade{}, attempts: map[envelope.UUID]int{}}
	e.troubles.round.what, e.troubles.heal.what, e.troubles.seal.what = "the engine could not go on", "what the guard accepted could not be taken over", "the log could not be sealed"
	e.troubles.beat.what = "the log could not be given a sign of life"
	return e
}

func (e *Engine) now() envelope.Time { return envelope.TimeOf(e.Clock()) }

// update runs one transaction, never in the middle of a change of event keys,
// and none while the engine has stopped.
func (e *Engine) update(ctx context.Context, f func(Tx) error) error {
	if err := e.standstill(); err != nil {
		return err
	}
	e.keyMu.RLock()
	defer e.keyMu.RUnlock()
	err := e.Store.Update(ctx, f)
	signal(e.grown)
	return err
}

func (e *Engine) poke() { signal(e.wake) }

// registries is the accepted chain, verified again only where it grew.
func (e *Engine) registries(r Reader) (keyregistry.Chain, error) {
	version, newest, err := r.NewestRegistry()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.regs); n > 0 && int64(n) == version && e.regs.Last().Digest() == envelope.DigestOf(newest) {
		return e.regs, nil
	}
	entries, err := r.Registry()
	if err != nil {
		return nil, err
	}
	regs, err := keyregistry.AcceptChain(e.Root, entries)
	if err != nil {
		return nil, err
	}
	for i := range regs {
		regs[i] = regs[i].Remembering(rememberedSignatures)
	}
	e.regs = regs
	return regs, nil
}

// Init starts an empty store: version 1 of the registry, which the guard has
// accepted by its own init, the first event key and the first checkpoint.
// ErrConflict where the store has a registry already.
func (e *Engine) Init(ctx context.Context, entry keyregistry.SignedDocument) error {
	reg, err := keyregistry.Accept(nil, e.Root, entry)
	if err != nil {
		return err
	}
	err = e.Store.View(ctx, func(r Reader) error {
		entries, err := r.Registry()
		if err == nil && len(entries) > 0 {
			err = errors.Join(ErrConflict, errors.New("the store has a registry already"))
		}
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(e.delegate(ctx, reg.KernelID(), func(tx Tx) error {
		if err := tx.AddRegistry(1, entry); err != nil {
			return err
		}
		_, err := tx.AppendEvent(EventDraft{Type: auditlog.RegistryUpdated, Actor: upgrade.KernelID, Data: auditlog.Data{
			auditlog.DataRecordDigest: reg.Digest().String(), "version": int64(1)}})
		return err
	}), e.seal(ctx))
}

// delegate makes a new event key and introduces it in the log. Nothing else is
// appended between the two; more, if any, follows in the same transaction.
func (e *Engine) delegate(ctx context.Context, kernelID envelope.ID, more func(Tx) error) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	key, err := filekey.New(private, signer.Ed25519)
	if err != nil {
		return err
	}
	now := e.now()
	until := now.Add(auditlog.MaxEventKeySeconds)
	delegation, err := e.Guard.DelegateEventKey(ctx, key.Public().DER(), e.Instance, now, until)
	if err != nil {
		return err
	}
	e.keyMu.Lock()
	defer e.keyMu.Unlock()
	if err := e.SetEventKey(kernelID, key, delegation); err != nil {
		return err
	}
	err = e.Store.Update(ctx, func(tx Tx) error {
		_, err := tx.AppendEvent(EventDraft{Type: auditlog.KeyDelegated, Actor: upgrade.KernelID, Data: auditlog.Data{
			auditlog.DataDelegation: base64.StdEncoding.EncodeToString(delegation.Bytes())}})
		if err != nil || more == nil {
			return err
		}
		return more(tx)
	})
	if err == nil {
		e.keyUntil = until
		signal(e.grown)
	}
	return err
}
