package workflow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// eventsFrom are the events of the log from seq on.
func (h *house) eventsFrom(seq int64) (out []workflow.StoredEvent) {
	h.t.Helper()
	if err := h.store.View(context.Background(), func(r workflow.Reader) (err error) { out, err = r.Events(seq, 1000); return err }); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// drive is one round of the engine, and a checkpoint where there is news.
func (h *house) drive() {
	h.t.Helper()
	if err := h.engine.Drive(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// happens logs an event with which nothing follows.
func (h *house) happens() {
	h.t.Helper()
	if err := h.store.Update(h.t.Context(), func(tx workflow.Tx) error {
		_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.ApprovalStale, Actor: "ann"})
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	h.drive()
}

// A log that stands still gets a sign of life once in a heartbeat: an event key
// that the hardware introduces, and a checkpoint over it. What happens otherwise
// puts it off.
func TestHeartbeat(t *testing.T) {
	h := newHouse(t)
	h.drive()
	size := h.logSize()
	still := func(what string) {
		t.Helper()
		h.drive()
		if got := h.logSize(); got != size {
			t.Fatalf("%s: the log grew from %d to %d events", what, size, got)
		}
	}
	beats := func(what string) {
		t.Helper()
		h.drive()
		news := h.eventsFrom(size)
		if len(news) != 1 || news[0].Event.Type != auditlog.KeyDelegated || h.sealedSize() != size+1 {
			t.Fatalf("%s: the log has %d more events, and %d of %d are sealed", what, len(news), h.sealedSize(), h.logSize())
		}
		size++
	}
	still("at once")
	h.clock.step(3500)
	still("before the hour is over")
	h.clock.step(110)
	beats("after an hour")
	still("right after it")
	h.clock.step(3500)
	h.happens()
	size++
	h.clock.step(3500)
	still("an hour after the last beat, but not after the last event")
	h.clock.step(110)
	beats("an hour after the last event")
	h.clock.step(30 * 3600) // the key's day is over: one new key serves both
	beats("after more than a day")
}

// deaf is a guard that introduces no event key while it is told so.
type deaf struct {
	workflow.Guard
	deaf bool
}

func (d *deaf) DelegateEventKey(ctx context.Context, publicKey []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error) {
	if d.deaf {
		return envelope.Envelope{}, errors.New("the device is away")
	}
	return d.Guard.DelegateEventKey(ctx, publicKey, instance, notBefore, notAfter)
}

// A sign of life that cannot be given holds nothing else up, and is given later.
func TestHeartbeatFails(t *testing.T) {
	h := newHouse(t)
	guard := &deaf{Guard: h.guard}
	h.guard = guard
	h.engine = h.newEngine()
	h.drive()
	guard.deaf = true
	h.clock.step(2 * 3600)
	size := h.logSize()
	h.drive()
	if h.logSize() != size {
		t.Fatal("a beat without the device")
	}
	h.propose(h.draft(nil)) // is taken all the same
	h.drive()
	if h.sealedSize() <= size {
		t.Error("nothing is sealed while the device gives no sign of life")
	}
	h.happens()
	size = h.logSize()
	guard.deaf = false
	h.clock.step(2 * 3600)
	h.drive()
	if news := h.eventsFrom(size); len(news) == 0 || news[0].Event.Type != auditlog.KeyDelegated {
		t.Errorf("%d more events once the device is back", len(news))
	}
}

// The interval is the operator's.
func TestHeartbeatIsSet(t *testing.T) {
	h := newHouse(t)
	h.engine.Heartbeat = 10 * time.Hour
	h.drive()
	size := h.logSize()
	h.clock.step(9 * 3600)
	if h.drive(); h.logSize() != size {
		t.Error("a beat after nine hours of ten")
	}
	h.clock.step(2 * 3600)
	if h.drive(); h.logSize() != size+1 {
		t.Error("no beat after eleven hours of ten")
	}
}
