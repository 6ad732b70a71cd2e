package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Hurry makes a bus look and try again at the pace of tests.
func (b *Bus) Hurry(ack time.Duration, now func() time.Time) {
	b.pace = pace{
		poll: 2 * time.Millisecond, check: 50 * time.Millisecond, first: 5 * time.Millisecond, longest: 50 * time.Millisecond,
		ack: ack, lease: 2 * time.Second,
	}
	if now != nil {
		b.now = now
	}
}

// CursorNext is the name of the bus's cursor.
const CursorNext = cursorNext

// Turn is a session's publishing, step by step.
type Turn struct{ s *session }

// Turn opens a session that stands where the stream ends.
func (b *Bus) Turn(ctx context.Context, js jetstream.JetStream) (*Turn, error) {
	s := &session{Bus: b, js: js, keys: map[envelope.KeyID][]byte{}, limit: 1 << 20}
	err := b.store.View(ctx, func(r workflow.Reader) (err error) { s.kernelID, err = kernelID(r); return err })
	if err != nil {
		return nil, err
	}
	if s.stream, err = b.openStream(ctx, js, s.kernelID); err != nil {
		return nil, err
	}
	return &Turn{s}, s.resume(ctx)
}

// Misread makes the session believe that the stream is shorter than it is.
func (t *Turn) Misread(messages uint64) { t.s.end -= messages }

// Publish publishes what is next, and moves the cursor.
func (t *Turn) Publish(ctx context.Context) error {
	b, err := t.s.read(ctx)
	if err != nil {
		return err
	}
	return t.s.publish(ctx, b)
}
