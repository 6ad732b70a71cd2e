package storagetest

import (
	"context"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

func search(t *testing.T, open Open) {
	s := open.with(t)
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		for i, intent := range []string{"Open on Mondays", "Ärger mit 100% Rabatt", "x_y"} {
			row := workflow.Upgrade{ID: envelope.UUID("0000000" + string(rune('0'+i))), Target: "web", Type: "code", ProposedBy: "ops", State: workflow.StateDraft,
				Intent: intent, CreatedAt: now, UpdatedAt: now, ExpiresAt: now}
			if err := tx.PutUpgrade(row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for search, want := range map[string]int{"": 3, "MONDAYS": 1, "ärger": 1, "ÄRGER": 1, "100%": 1, "%": 1, "_": 1, "OPS": 3, "web": 3, "00000001": 1, "code": 3, "mondays\nweb": 1, "nothing": 0} {
		err := s.View(context.Background(), func(r workflow.Reader) error {
			list, _, err := r.Upgrades(workflow.Page{Search: search})
			if err != nil || len(list) != want {
				t.Errorf("%q finds %d, not %d: %v", search, len(list), want, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newestRecordAndRecordsOfAPerson(t *testing.T, open Open) {
	s := open.with(t)
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	patch := envelope.DigestOf([]byte("patch"))
	add := func(tx workflow.Tx, body, upgradeID, person string, of envelope.Digest) {
		t.Helper()
		rec := workflow.Record{Digest: envelope.DigestOf([]byte(body)), UpgradeID: envelope.UUID(upgradeID), Kind: "approval", Person: envelope.ID(person),
			SignedAt: now, ReceivedAt: now, Patch: of, Body: []byte(body)}
		if added, err := tx.AddRecord(rec); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		row := workflow.Upgrade{ID: "a", Target: "web", State: workflow.StateDraft, Patch: patch, CreatedAt: now, UpdatedAt: now, ExpiresAt: now}
		if err := tx.PutUpgrade(row); err != nil {
			return err
		}
		steps := []struct {
			do   func()
			want int64
		}{
			{func() {}, 0},
			{func() { add(tx, "1", "a", "ryan", envelope.Digest{}) }, 1},
			{func() { add(tx, "2", "b", "ryan", envelope.Digest{}) }, 1}, // another's
			{func() { add(tx, "3", "b", "ci", patch) }, 3},               // of its patch
		}
		for i, step := range steps {
			step.do()
			if got, err := tx.NewestRecord("a"); err != nil || got != step.want {
				t.Errorf("step %d: %d, not %d: %v", i, got, step.want, err)
			}
		}
		list, err := tx.RecordsBy("ryan", 10)
		if err != nil || len(list) != 2 || string(list[0].Body) != "2" {
			t.Errorf("%d records of ryan: %v", len(list), err)
		}
		list, err = tx.RecordsBy("ryan", 1)
		if err != nil || len(list) != 1 {
			t.Errorf("%d records of ryan where 1 was asked for: %v", len(list), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
