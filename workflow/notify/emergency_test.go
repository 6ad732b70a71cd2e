package notify_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// Of an emergency all five approvers, the requestor and the auditors are told,
// with high priority.
func TestEmergencyIsTold(t *testing.T) {
	in := newInbox(t, true)
	s := newStore(auditlog.UpgradeEmergencyApplied)
	run(t, config(hook(t, in, "ops")), s)
	eventually(t, "one message", func() bool { return len(in.requests()) == 1 })
	var event struct {
		Data struct {
			Priority string
			People   []string
			Auditors bool
		}
	}
	if err := json.Unmarshal([]byte(in.requests()[0].body), &event, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if d := event.Data; d.Priority != "high" || !d.Auditors || len(d.People) != 6 {
		t.Errorf("%+v", d)
	}
}

// An upgrade that did not end by itself is not said to be complete.
func TestEndingIsTold(t *testing.T) {
	in := newInbox(t, true)
	s := newStore(auditlog.UpgradeCompleted, auditlog.UpgradeCompleted, auditlog.UpgradeCompleted)
	s.events[1].Event.Data = auditlog.Data{"code": "superseded"}
	s.events[2].Event.Data = auditlog.Data{"code": "kept"}
	run(t, config(hook(t, in, "ops")), s)
	eventually(t, "three messages", func() bool { return len(in.requests()) == 3 })
	for i, want := range []string{"is complete", "another upgrade is live", "three rejected the rollback"} {
		if body := in.requests()[i].body; !strings.Contains(body, want) {
			t.Errorf("message %d: %s", i, body)
		}
	}
}
