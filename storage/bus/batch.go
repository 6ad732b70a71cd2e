package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	maxEvents = 128     // of a batch
	maxBytes  = 4 << 20 // of a batch, but for its last message
	maxKeys   = 1024    // delegations in memory
)

// batch is what is published next, and the event keys that it introduces.
type batch struct {
	messages []outgoing
	keys     []introduced
}

// read takes the sealed events from s.next on, each after the record that it names.
func (s *session) read(ctx context.Context) (batch, error) {
	var b batch
	err := s.store.View(ctx, func(r workflow.Reader) error {
		b = batch{}
		note, size, err := r.Checkpoint()
		if errors.Is(err, workflow.ErrNotFound) || err == nil && size <= s.next {
			return nil
		}
		if err != nil {
			return err
		}
		events, err := r.Events(s.next, int(min(maxEvents, size-s.next)))
		if err != nil {
			return err
		}
		bytes := 0
		for _, e := range events {
			if bytes > maxBytes {
				break
			}
			if err := s.add(r, &b, e, note, size); err != nil {
				return fmt.Errorf("event %d: %w", e.Seq, err)
			}
			bytes += len(b.messages[len(b.messages)-1].body)
		}
		return nil
	})
	return b, err
}

func (s *session) add(r workflow.Reader, b *batch, e workflow.StoredEvent, note string, size int64) error {
	rec, err := recordOf(r, e.Event)
	if err != nil {
		return err
	}
	if rec != nil {
		m, err := recordMessage(e, *rec, s.limit)
		if err != nil {
			return err
		}
		b.messages = append(b.messages, m)
	}
	if e.Event.Type == auditlog.KeyDelegated {
		b.keys = append(b.keys, introduced{e.Event.KeyID, e.Seq})
		if err := s.learn(e.Event); err != nil {
			return err
		}
	}
	delegation, err := s.delegation(r, e.Event.KeyID)
	if err != nil {
		return err
	}
	proof, err := r.InclusionProof(e.Seq, size)
	if err != nil {
		return err
	}
	m, err := eventMessage(e, note, proof, delegation)
	b.messages = append(b.messages, m)
	return err
}

// recordOf is the record that an event names, nil where it is not kept: what
// did not verify is not.
func recordOf(r workflow.Reader, e auditlog.Event) (*workflow.Record, error) {
	text := e.Data.Text(auditlog.DataRecordDigest)
	if text == "" {
		return nil, nil
	}
	digest, err := envelope.ParseDigest(text)
	if err != nil {
		return nil, err
	}
	rec, err := r.Record(digest)
	if err == nil {
		return &rec, nil
	}
	if !errors.Is(err, workflow.ErrNotFound) {
		return nil, err
	}
	if e.Type != auditlog.RegistryUpdated {
		return nil, nil
	}
	entries, err := r.Registry()
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if envelope.DigestOf(entry.Document) == digest {
			body, err := envelope.Canonical(entry)
			return &workflow.Record{Digest: digest, Kind: workflow.KindRegistryEntry, Body: body}, err
		}
	}
	return nil, nil
}

// learn keeps the delegation that an event carries.
func (s *session) learn(e auditlog.Event) error {
	env, err := e.Delegation()
	if err != nil {
		return err
	}
	if len(s.keys) >= maxKeys {
		clear(s.keys)
	}
	s.keys[e.KeyID] = env.Bytes()
	return nil
}

// delegation is the envelope that introduced an event key.
func (s *session) delegation(r workflow.Reader, id envelope.KeyID) ([]byte, error) {
	if known, ok := s.keys[id]; ok {
		return known, nil
	}
	at, err := r.Cursor(cursorKey + string(id))
	if err != nil {
		return nil, err
	}
	if at == 0 {
		return nil, fmt.Errorf("no event before it introduces its event key %s", id)
	}
	events, err := r.Events(at-1, 1)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Event.KeyID != id {
		return nil, fmt.Errorf("event %d does not introduce the event key %s", at-1, id)
	}
	err = s.learn(events[0].Event)
	return s.keys[id], err
}
