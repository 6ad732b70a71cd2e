package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/bus"
)

// follow is a reader that trusts neither gateway nor server: it goes on where
// its durable consumer was, verifies each message by itself, and acknowledges it
// once keep has kept it. A message of which the acknowledgement was lost comes
// again, after AckWait: keep passes over what it has.
func follow(ctx context.Context, js jetstream.JetStream, v *bus.Verifier, keep func(bus.Message) error) error {
	consumer, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: "auditor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, AckWait: time.Second,
	})
	if err != nil {
		return err
	}
	for {
		raw, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			return err
		}
		m, err := bus.Parse(raw.Data())
		if err != nil {
			return err
		}
		if m.Sequence == "" {
			_, err = v.Record(m)
		} else {
			_, _, err = v.Event(m)
		}
		if err != nil {
			return err
		}
		if err := keep(m); err != nil {
			return err
		}
		if err := raw.DoubleAck(ctx); err != nil {
			return err
		}
	}
}

func ExampleVerifier() {
	var (
		ctx     context.Context
		js      jetstream.JetStream
		root    envelope.Digest              // pinned
		entries []keyregistry.SignedDocument // from /v1/registry
	)
	v, err := bus.NewVerifier(root, entries)
	if err != nil {
		return
	}
	_ = follow(ctx, js, v, func(m bus.Message) error { return nil /* write it where it lasts */ })
}

// reader keeps what it reads in memory, as one would in a database.
type reader struct {
	a     *auditor
	left  int   // messages until it dies; negative: it lives
	size  int64 // of the log, where it ends
	twice int   // messages that came again
	ends  context.CancelFunc
}

var errDied = errors.New("the reader dies")

func (r *reader) keep(m bus.Message) error {
	if r.a.has(m) {
		r.twice++
		return nil
	}
	r.a.verified(m, subjectOf(m))
	if r.a.next == r.size {
		r.ends() // before the acknowledgement: the last message may come again to the next
	}
	if r.left--; r.left == 0 {
		return errDied // it has kept the message, and not acknowledged it
	}
	return nil
}

func subjectOf(m bus.Message) string {
	if m.Sequence == "" {
		return "kernelgate.kernel-test.records." + m.Type[len("com.kernelgate.record."):]
	}
	return "kernelgate.kernel-test.events." + m.Type[len("com.kernelgate."):]
}

// A durable consumer that dies between keeping a message and acknowledging it,
// and whose server is killed, goes on where it was: it misses nothing, and what
// comes twice it knows.
func TestAReaderGoesOnWhereItWas(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	l.grow(20)
	l.caughtUp()
	r := &reader{a: l.auditor()}
	read := func(left int) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.left, r.size, r.ends = left, l.size(), cancel
		return follow(ctx, s.consumer(), r.a.verifier, r.keep)
	}
	for range 2 {
		if err := read(7); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
	}
	if r.twice == 0 || r.twice >= 7 {
		t.Errorf("%d messages came again, where one was not acknowledged: the reader does not go on where it was", r.twice)
	}
	s.kill() // what the consumer acknowledged is the server's to keep
	s.start()
	l.grow(10)
	l.caughtUp()
	if err := read(-1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if r.a.next != l.size() || len(r.a.records) != l.records+1 {
		t.Errorf("the reader is at %d of %d, with %d records of %d", r.a.next, l.size(), len(r.a.records), l.records+1)
	}
}

func TestTamperedMessagesAreRefused(t *testing.T) {
	s := newServer(t, "")
	s.start()
	l := newLog(t)
	newBus(t, l, config(s)).start(t)
	l.grow(9)
	l.caughtUp()
	v, err := bus.NewVerifier(l.fixture.Root, l.fixture.Entries)
	check(t, err)
	found, err := s.consumer().Stream(t.Context(), stream)
	check(t, err)
	last := func(filter string) bus.Message {
		t.Helper()
		raw, err := found.GetLastMsgForSubject(t.Context(), "kernelgate.kernel-test."+filter)
		check(t, err)
		m, err := bus.Parse(raw.Data)
		check(t, err)
		return m
	}
	other, approval := last("events.approval.submitted"), last("records.approval")
	flip := func(b []byte, i int) []byte { c := append([]byte{}, b...); c[i] ^= 1; return c }
	for name, change := range map[string]func(*bus.Message){
		"another id":            func(m *bus.Message) { m.ID = "1" },
		"no id":                 func(m *bus.Message) { m.ID = "" },
		"another type":          func(m *bus.Message) { m.Type = other.Type },
		"another source":        func(m *bus.Message) { m.Source = "kernelgate/other" },
		"another time":          func(m *bus.Message) { m.Time = m.Time.Add(1) },
		"an upgrade":            func(m *bus.Message) { m.Subject = "0b7f1d5e-3c1a-4c57-9d0e-000000000042" },
		"another sequence":      func(m *bus.Message) { m.Sequence = other.Sequence },
		"a hash of the proof":   func(m *bus.Message) { m.Proof = flip(m.Proof, 3) },
		"a short proof":         func(m *bus.Message) { m.Proof = m.Proof[:len(m.Proof)-1] },
		"another's proof":       func(m *bus.Message) { m.Proof = other.Proof },
		"no proof":              func(m *bus.Message) { m.Proof = nil },
		"the checkpoint's size": func(m *bus.Message) { m.Checkpoint = flip(m.Checkpoint, len("kernelgate/kernel-test\n")) },
		"no checkpoint":         func(m *bus.Message) { m.Checkpoint = nil },
		"the delegation":        func(m *bus.Message) { m.Delegation = flip(m.Delegation, 40) },
		"no delegation":         func(m *bus.Message) { m.Delegation = nil },
		"another event":         func(m *bus.Message) { m.Data = other.Data },
		"a record":              func(m *bus.Message) { m.Data = approval.Data },
		"no data":               func(m *bus.Message) { m.Data = nil },
	} {
		m := last("events.upgrade.pending_approval")
		if _, _, err := v.Event(m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		if _, _, err := v.Event(m); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	for name, change := range map[string]func(*bus.Message){
		"another digest": func(m *bus.Message) { m.ID = envelope.DigestOf(nil).String() },
		"an event":       func(m *bus.Message) { m.Data = other.Data },
		"no data":        func(m *bus.Message) { m.Data = nil },
		"as a report":    func(m *bus.Message) { m.DataContentType = "application/json" },
		"as an entry":    func(m *bus.Message) { m.Type = "com.kernelgate.record.registry-entry" },
	} {
		m := approval
		change(&m)
		if _, err := v.Record(m); err == nil {
			t.Errorf("record, %s: verified", name)
		}
	}
}
