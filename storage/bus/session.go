package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// session is one connection's time.
type session struct {
	*Bus
	kernelID envelope.ID
	js       jetstream.JetStream
	stream   jetstream.Stream
	limit    int64  // of a message, in bytes
	end      uint64 // the stream's last sequence
	next     int64  // seq of the next event
	keys     map[envelope.KeyID][]byte
	failed   atomic.Pointer[error] // what the server said beside its answers
}

var errEmpty = errors.New("the log has no event yet")

// serve publishes for as long as the lease and the connection hold.
func (b *Bus) serve(ctx context.Context) error {
	if err := b.claim(ctx); err != nil {
		return err
	}
	s := &session{Bus: b, keys: map[envelope.KeyID][]byte{}}
	err := b.store.View(ctx, func(r workflow.Reader) (err error) {
		s.kernelID, err = kernelID(r)
		return err
	})
	if err == nil && s.kernelID == "" {
		err = errEmpty
	}
	if err != nil {
		return err
	}
	conn, err := b.connect(ctx, func(err error) { s.failed.Store(&err) })
	if err != nil {
		return err
	}
	defer conn.Close()
	s.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*maxEvents), jetstream.WithPublishAsyncTimeout(b.pace.ack), jetstream.WithDefaultTimeout(b.pace.ack))
	if err != nil {
		return err
	}
	if s.stream, err = b.openStream(ctx, s.js, s.kernelID); err != nil {
		return s.with(err)
	}
	s.limit = conn.MaxPayload() - 4096 // room for headers
	if most := int64(s.stream.CachedInfo().Config.MaxMsgSize); most > 0 {
		s.limit = min(s.limit, most-4096)
	}
	if err := s.resume(ctx); err != nil {
		return s.with(err)
	}
	return s.with(s.follow(ctx))
}

// with adds what the server said beside its answers: a lacking permission, say.
func (s *session) with(err error) error {
	if said := s.failed.Load(); said != nil {
		return errors.Join(err, *said)
	}
	return err
}

// resume sets the cursor to where the stream ends.
func (s *session) resume(ctx context.Context) error {
	last, hash, err := s.stands(ctx)
	if err != nil {
		return err
	}
	var from int64
	var keys []introduced
	err = s.store.View(ctx, func(r workflow.Reader) (err error) {
		if from, err = r.Cursor(cursorNext); err != nil {
			return err
		}
		switch {
		case s.end == 0:
			s.next = 0
		case last < 0:
			s.next = from // its messages are gone by age, or were purged
		default:
			s.next, err = last+1, s.compare(r, last, hash)
		}
		if err != nil || s.next <= from {
			return err
		}
		keys, err = keysBetween(r, from, s.next)
		return err
	})
	if err != nil || s.next == from {
		return err
	}
	s.logger.InfoContext(ctx, "the audit bus goes on where its stream ends", "stream", s.Stream, "cursor", from, "next", s.next)
	return s.move(ctx, from, s.next, keys)
}

// stands reads where the stream ends, and the last event's seq and hash. The
// two belong together: a stream that grew in between is not gone on from.
func (s *session) stands(ctx context.Context) (int64, envelope.Digest, error) {
	before, err := s.stream.Info(ctx)
	if err != nil {
		return 0, envelope.Digest{}, err
	}
	last, hash, err := s.lastEvent(ctx)
	if err != nil {
		return last, hash, err
	}
	after, err := s.stream.Info(ctx)
	if err == nil && after.State.LastSeq != before.State.LastSeq {
		err = errMoved
	}
	if err == nil {
		s.end = after.State.LastSeq
	}
	return last, hash, err
}

// lastEvent is the seq and the hash of the last event in the stream; -1 for none.
func (s *session) lastEvent(ctx context.Context) (int64, envelope.Digest, error) {
	raw, err := s.stream.GetLastMsgForSubject(ctx, Subject(s.kernelID)+".events.>")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return -1, envelope.Digest{}, nil
	}
	if err != nil {
		return 0, envelope.Digest{}, err
	}
	m, err := Parse(raw.Data)
	if err != nil {
		return 0, envelope.Digest{}, s.foreign(err)
	}
	seq, err := strconv.ParseInt(m.ID, 10, 64)
	if err != nil || seq < 0 {
		return 0, envelope.Digest{}, s.foreign(fmt.Errorf("its id is %.40q", m.ID))
	}
	env, err := envelope.Parse(bytes.Clone(m.Data))
	if err != nil {
		return 0, envelope.Digest{}, s.foreign(err)
	}
	return seq, env.PayloadDigest(), nil
}

func (s *session) foreign(err error) error {
	return fmt.Errorf("the last message of stream %s is not this gateway's; only gateways may publish there: %w", s.Stream, err)
}

// compare refuses a stream that ends with another event than the log has there.
func (s *session) compare(r workflow.Reader, seq int64, hash envelope.Digest) error {
	own, err := r.Events(seq, 1)
	if err != nil {
		return err
	}
	if len(own) == 0 {
		return fmt.Errorf("stream %s has event %d, which this log has not: the store is an older copy, or the stream is another Kernel's", s.Stream, seq)
	}
	if own[0].Hash != hash {
		return fmt.Errorf("stream %s has another event %d than this log: one of the two was rewritten", s.Stream, seq)
	}
	return nil
}

// follow publishes what is sealed until something fails.
func (s *session) follow(ctx context.Context) error {
	checked := time.Now()
	for ctx.Err() == nil {
		b, err := s.read(ctx)
		if err != nil {
			return err
		}
		if len(b.messages) > 0 {
			if err := s.publish(ctx, b); err != nil {
				return err
			}
			s.tell(nil)
			checked = time.Now()
			continue
		}
		if time.Since(checked) >= s.pace.check {
			if err := s.check(ctx); err != nil {
				return err
			}
			s.tell(nil)
			checked = time.Now()
		}
		pause(ctx, s.pace.poll)
	}
	return ctx.Err()
}

// check notices, while there is nothing to publish, that the stream is not what
// it was: gone, or behind after a crash of the server.
func (s *session) check(ctx context.Context) error {
	if err := s.claim(ctx); err != nil {
		return err
	}
	info, err := s.stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.LastSeq != s.end {
		return fmt.Errorf("stream %s ends at its message %d, not at %d", s.Stream, info.State.LastSeq, s.end)
	}
	return nil
}
