package guard

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Source is what a memory is rebuilt from: the log under its newest
// checkpoint, and the records that its events name. The guard trusts none of it.
type Source interface {
	Registry(ctx context.Context) ([]keyregistry.SignedDocument, error) // version 1 first
	Checkpoint(ctx context.Context) (note string, size int64, err error)
	// Leaves yields the leaves 0 to size-1, in order.
	Leaves(ctx context.Context, size int64) iter.Seq2[[]byte, error]
	// Record is the canonical bytes of a quorum bundle, by its bundleDigest, or
	// of a record's envelope, by its payload's digest.
	Record(ctx context.Context, digest envelope.Digest) ([]byte, error)
	// Signed is the envelope of what the Kernel signed for a bundle of an
	// upgrade; workflow.ErrNotFound where none was kept.
	Signed(ctx context.Context, id envelope.UUID, bundle envelope.Digest) ([]byte, error)
}

// frame is one piece of a source on its way: the registry entries, then the
// checkpoint, then the leaves, each with the records that it names.
type frame struct {
	Registry   *keyregistry.SignedDocument `json:"registry,omitzero"`
	Checkpoint string                      `json:"checkpoint,omitzero"`
	Leaf       []byte                      `json:"leaf,omitzero"`
	Bundle     jsontext.Value              `json:"bundle,omitzero"`
	Record     *envelope.Envelope          `json:"record,omitzero"` // a suspension, or the Kernel's rollback manifest
	Signed     *envelope.Envelope          `json:"signed,omitzero"`
}

// frames reads a source in the order in which a guard takes it.
func frames(ctx context.Context, src Source) iter.Seq2[*frame, error] {
	return func(yield func(*frame, error) bool) {
		entries, err := src.Registry(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for i := range entries {
			if !yield(&frame{Registry: &entries[i]}, nil) {
				return
			}
		}
		note, size, err := src.Checkpoint(ctx)
		if !yield(&frame{Checkpoint: note}, err) || err != nil {
			return
		}
		for leaf, err := range src.Leaves(ctx, size) {
			f := &frame{Leaf: leaf}
			if err == nil {
				err = f.attach(ctx, src)
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// attach adds the records that the leaf's event names and a guard needs.
func (f *frame) attach(ctx context.Context, src Source) error {
	e, _, err := auditlog.ParseLeaf(f.Leaf)
	if err != nil {
		return err
	}
	switch {
	case e.Type == auditlog.UpgradeApplying || e.Type == auditlog.UpgradeRatified:
		return f.attachBundle(ctx, src, e)
	case namesRecord(e):
		digest, err := envelope.ParseDigest(e.Data.Text(auditlog.DataRecordDigest))
		if err != nil {
			return err
		}
		data, err := src.Record(ctx, digest)
		if err != nil {
			return fmt.Errorf("the record %s that event %d names: %w", digest, e.Seq, err)
		}
		f.Record, err = parsed(data)
		return err
	}
	return nil
}

// namesRecord says which events' records a guard has to see again.
func namesRecord(e auditlog.Event) bool {
	return e.Type == auditlog.RegistryKeySuspended || e.Type == auditlog.UpgradeCreated && e.Actor == upgrade.KernelID
}

func (f *frame) attachBundle(ctx context.Context, src Source, e auditlog.Event) error {
	digest, err := envelope.ParseDigest(e.Data.Text(auditlog.DataBundleDigest))
	if err != nil {
		return err
	}
	if f.Bundle, err = src.Record(ctx, digest); err != nil {
		return fmt.Errorf("the bundle %s that event %d names: %w", digest, e.Seq, err)
	}
	data, err := src.Signed(ctx, e.UpgradeID, digest)
	if errors.Is(err, workflow.ErrNotFound) {
		return nil
	}
	if err == nil {
		f.Signed, err = parsed(data)
	}
	return err
}

func parsed(data []byte) (*envelope.Envelope, error) {
	env, err := envelope.Parse(data)
	return &env, err
}

// FromStore reads the log and its records from a gateway's store.
func FromStore(store workflow.Store) Source { return storeSource{store} }

type storeSource struct{ store workflow.Store }

func (s storeSource) Registry(ctx context.Context) (entries []keyregistry.SignedDocument, err error) {
	err = s.store.View(ctx, func(r workflow.Reader) error { entries, err = r.Registry(); return err })
	return entries, err
}

func (s storeSource) Checkpoint(ctx context.Context) (note string, size int64, err error) {
	err = s.store.View(ctx, func(r workflow.Reader) error { note, size, err = r.Checkpoint(); return err })
	return note, size, err
}

// page is how many events are read at a time.
const page = 1000

func (s storeSource) Leaves(ctx context.Context, size int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for next := int64(0); next < size; {
			var events []workflow.StoredEvent
			err := s.store.View(ctx, func(r workflow.Reader) (err error) {
				events, err = r.Events(next, int(min(page, size-next)))
				return err
			})
			if err == nil && len(events) == 0 {
				err = failure.New(failure.AuditChainBroken, "event %d is missing; the checkpoint seals %d events", next, size)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range events {
				if !yield(e.Leaf, nil) {
					return
				}
			}
			next += int64(len(events))
		}
	}
}

func (s storeSource) Record(ctx context.Context, digest envelope.Digest) (body []byte, err error) {
	err = s.store.View(ctx, func(r workflow.Reader) error {
		rec, err := r.Record(digest)
		body = rec.Body
		return err
	})
	return body, err
}

// Signed finds the record by what it says of itself: the guard verifies it.
func (s storeSource) Signed(ctx context.Context, id envelope.UUID, bundle envelope.Digest) (body []byte, err error) {
	err = s.store.View(ctx, func(r workflow.Reader) error {
		list, err := r.Records(id)
		for _, rec := range list {
			if rec.Kind != workflow.KindAppliedRecord && rec.Kind != workflow.KindRatification {
				continue
			}
			if names, err := bundleOf(rec.Body); err != nil || names != bundle {
				continue
			}
			body = rec.Body
		}
		if err == nil && body == nil {
			err = workflow.ErrNotFound
		}
		return err
	})
	return body, err
}
