package notify_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

func (in *inbox) ids() []string {
	var ids []string
	for _, r := range in.requests() {
		ids = append(ids, r.header.Get("webhook-id"))
	}
	return ids
}

func seqs(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("k/%d", i))
	}
	return ids
}

// Two gateways on one store: each message is sent once and in order, and when
// one ends the other goes on.
func TestTwoGateways(t *testing.T) {
	in := newInbox(t, false)
	c := config(hook(t, in, "ops"))
	c.Receivers[0].Webhook.CAFile = ""
	s := newStore(slices.Repeat([]string{auditlog.UpgradeApplied}, 250)...)
	one, two := run(t, c, s), run(t, c, s)
	eventually(t, "all messages", func() bool { return s.cursor("notify/ops") == 250 })
	if got := in.ids(); !slices.Equal(got, seqs(0, 250)) {
		t.Fatalf("%d messages: %v", len(got), got)
	}
	for i, stop := range []func(){one.stop, two.stop} {
		stop()
		third := run(t, c, s)
		for range 50 {
			s.add(auditlog.UpgradeApplied, start)
		}
		eventually(t, "more messages", func() bool { return s.cursor("notify/ops") == int64(300+50*i) })
		if i == 0 {
			third.stop()
		}
	}
	if got := in.ids(); !slices.Equal(got, seqs(0, 350)) {
		t.Fatalf("%d messages: %v", len(got), got)
	}
}

// What a gateway that has lost its lease still wants to write down is refused:
// it must not set the other back.
func TestLostLease(t *testing.T) {
	in := newInbox(t, false)
	in.answer(http.StatusServiceUnavailable)
	c := config(hook(t, in, "ops"))
	c.Receivers[0].Webhook.CAFile = ""
	s := newStore(auditlog.UpgradeApplied)
	slow := run(t, c, s)
	eventually(t, "an attempt", func() bool { return len(in.ids()) > 0 })
	const other = 1<<20 - 1 // the holder's name of another gateway
	err := s.Update(t.Context(), func(tx workflow.Tx) error {
		return tx.PutCursor("notify/ops/lease", start.Add(60).Unix()<<20|other)
	})
	if err != nil {
		t.Fatal(err)
	}
	in.answer(http.StatusNoContent)
	eventually(t, "the attempt that was under way", func() bool { return len(in.ids()) > 1 })
	slow.stop()
	if s.cursor("notify/ops") != 0 || s.cursor("notify/ops/lease")&(1<<20-1) != other {
		t.Fatalf("it wrote on: %d, lease %d", s.cursor("notify/ops"), s.cursor("notify/ops/lease"))
	}
	// The other is dead. Its lease ends by the clock.
	s.cursors["notify/ops/lease"] = start.Unix()<<20 | other
	run(t, c, s)
	eventually(t, "the message", func() bool { return s.cursor("notify/ops") == 1 })
}
