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
		if done > 0 && notInTurn(failed) {
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
// only at its place, and only behind the one before it: so they stay in order
// whatever is lost, and two gateways that both think the turn is theirs do not
// mix. The place alone would not do: in a stream that is longer than this
// session believes, a later message would be at its place.
func (s *session) pipeline(ctx context.Context, messages []outgoing) (done int, err error) {
	var futures []jetstream.PubAckFuture
	for i, m := range messages {
		options := []jetstream.PublishOpt{
			jetstream.WithMsgID(m.id), jetstream.WithExpectLastSequence(s.end + uint64(i)), jetstream.WithExpectStream(s.Stream),
			jetstream.WithRetryAttempts(0), jetstream.WithStallWait(s.pace.ack),
		}
		if i > 0 {
			options = append(options, jetstream.WithExpectLastMsgID(messages[i-1].id))
		}
		var f jetstream.PubAckFuture
		f, err = s.js.PublishMsgAsync(&nats.Msg{Subject: m.subject, Data: m.body, Header: nats.Header{"Content-Type": {ContentType}}}, options...)
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
			s.end = max(s.end, ack.Sequence) // of a message that the stream knew, where it stands
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

// wrongMessageID is the server's code for another last message than was expected.
const wrongMessageID jetstream.ErrorCode = 10070

// notInTurn: the stream ends otherwise than the message expects.
func notInTurn(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant, wrongMessageID:
		return true
	}
	return false
}
