package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
)

func rows(t *testing.T, open Open) {
	s := open.with(t)
	ctx := context.Background()
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	const total = 25
	err := s.Update(ctx, func(tx workflow.Tx) error {
		for i := range total {
			u := workflow.Upgrade{
				ID: envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-%012d", i)), Target: "web", Type: "code", State: workflow.StateDraft,
				ManifestDigest: envelope.DigestOf([]byte{byte(i)}), ProposedBy: "ops", CreatedAt: now.Add(int64(i / 2)), UpdatedAt: now, ExpiresAt: now.Add(100),
			}
			if i%5 == 0 {
				due := now.Add(int64(i))
				u.NextAt, u.State = &due, workflow.StateApplying
			}
			if err := tx.PutUpgrade(u); err != nil {
				return err
			}
		}
		return tx.PutTarget(workflow.Target{Name: "web", Live: "none", Applying: id})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(ctx, func(r workflow.Reader) error {
		seen := map[envelope.UUID]bool{}
		for cursor := ""; ; {
			list, next, err := r.Upgrades(workflow.Page{Cursor: cursor, Limit: 4})
			if err != nil {
				return err
			}
			for _, u := range list {
				if seen[u.ID] {
					t.Errorf("%s stands on two pages", u.ID)
				}
				seen[u.ID] = true
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if len(seen) != total {
			t.Errorf("%d upgrades are listed, not %d", len(seen), total)
		}
		due, err := r.Due(now.Add(10), now.Add(70), 10)
		if len(due) != 3 || due[0].NextAt == nil || *due[0].NextAt != now {
			t.Errorf("due are %v", due)
		}
		if err != nil {
			return err
		}
		applying, _, err := r.Upgrades(workflow.Page{States: []workflow.State{workflow.StateApplying}, Target: "web"})
		if len(applying) != 5 {
			t.Errorf("%d upgrades are applying, not 5", len(applying))
		}
		if target, err := r.Target("web"); err != nil || target.Applying != id {
			t.Errorf("the target is %v, %v", target, err)
		}
		if target, err := r.Target("new"); err != nil || target.Live != "none" {
			t.Errorf("a target never seen is %v, %v", target, err)
		}
		if _, err := r.Upgrade(id[:35] + "f"); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("an upgrade never seen: %v", err)
		}
		if _, _, err := r.Upgrades(workflow.Page{Cursor: "x"}); failure.ClassOf(err) != failure.FieldInvalid {
			t.Errorf("a forged cursor: %v", err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func recordOnce(t *testing.T, open Open) {
	s := open.with(t)
	for i := range 2 {
		err := s.Update(context.Background(), func(tx workflow.Tx) error {
			added, err := tx.AddRecord(record("a"))
			if added != (i == 0) {
				t.Errorf("round %d: added is %v", i, added)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What people write, and what programs say, comes back as it was.
func anyBytes(t *testing.T, open Open) {
	s := open.with(t)
	body := bytes.Repeat([]byte{0, 0xff, '\'', '\\', 0x80}, 40_000)
	rec := record("any")
	rec.Body = body
	row := workflow.Upgrade{ID: id, State: workflow.StateDraft, Intent: "Grüße, 'quoted' \\ \t\n $1 ? 漢字 🙂", Reason: "a program wrote \x00 and \xff"}
	update(t, s, func(tx workflow.Tx) error {
		if _, err := tx.AddRecord(rec); err != nil {
			return err
		}
		return tx.PutUpgrade(row)
	})
	view(t, s, func(r workflow.Reader) error {
		got, err := r.Record(rec.Digest)
		if err != nil || !bytes.Equal(got.Body, body) {
			t.Errorf("%d bytes came back: %v", len(got.Body), err)
		}
		u, err := r.Upgrade(id)
		if u.Intent != row.Intent || u.Reason != "a program wrote \uFFFD and \uFFFD" {
			t.Errorf("%q, %q came back", u.Intent, u.Reason)
		}
		return err
	})
}
