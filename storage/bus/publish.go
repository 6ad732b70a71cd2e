package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// publish publishes a batch and moves the cursor behind what was acknowledged.
func (s *session) publish(ctx context.Context, b batch) error {
	from, rest := s.next, b.messages
	var failed error
	for len(rest) > 0 && failed == nil {
		var done int
		done, failed = s.pipeline(ctx, rest)
		if done > 0 {
			s.next = rest[done-1].next
		}
		rest = rest[done:]
		if done > 0 && wrongSequence(failed) {
			failed = nil // the stream knew a message of ours: those behind it counted on one more
		}
	}
	if s.next == from {
		return failed
	}
	var keys []introduced
	for _, k := range b.keys {
		if k.seq < s.next {
			keys = append(keys, k)
		}
	}
	return errors.Join(failed, s.move(ctx, from, s.next, keys))
}

// pipeline publishes messages without waiting for one after the other, and
// says how many from the first on the stream has. Each is taken by the stream
// only if the one before it was: so they stay in order whatever is lost, and
// two gateways that both think the turn is theirs do not mix.
func (s *session) pipeline(ctx context.Context, messages []outgoing) (done int, err error) {
	var futures []jetstream.PubAckFuture
	for i, m := range messages {
		var f jetstream.PubAckFuture
		f, err = s.js.PublishMsgAsync(&nats.Msg{Subject: m.subject, Data: m.body, Header: nats.Header{"Content-Type": {ContentType}}},
			jetstream.WithMsgID(m.id), jetstream.WithExpectLastSequence(s.end+uint64(i)), jetstream.WithExpectStream(s.Stream), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(s.pace.ack))
		if err != nil {
			break
		}
		futures = append(futures, f)
	}
	// All are waited for, the failed ones too: none may come in later on.
	for _, f := range futures {
		ack, ackErr := s.wait(ctx, f)
		switch {
		case ackErr != nil && err == nil:
			err = ackErr
		case ackErr == nil && err == nil:
			done++
			if !ack.Duplicate {
				s.end = ack.Sequence
			}
		}
	}
	return done, err
}

// wait takes at most as long as an acknowledgement may.
func (s *session) wait(ctx context.Context, f jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case ack := <-f.Ok():
		return ack, nil
	case err := <-f.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func wrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}
