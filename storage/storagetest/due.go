package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func claims(t *testing.T, open Open) {
	s := open.with(t)
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	row := workflow.Upgrade{ID: id, Target: "web", State: workflow.StateApplying, CreatedAt: now, UpdatedAt: now, NextAt: &now, ExpiresAt: now}
	claim := func(tx workflow.Tx, at int64, who string) int {
		list, err := tx.Claim(now.Add(at), now.Add(at+60), who, 10)
		if err != nil {
			t.Fatal(err)
		}
		due, err := tx.Due(now.Add(at), now.Add(at+60), 10)
		if err != nil || len(due) != 0 {
			t.Fatalf("%d due after a claim of all: %v", len(due), err)
		}
		return len(list)
	}
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		if err := tx.PutUpgrade(row); err != nil {
			return err
		}
		for i, step := range []struct {
			at   int64
			who  string
			do   func() error
			want int
		}{
			{0, "one", nil, 1},
			{59, "two", nil, 0},
			{60, "two", nil, 1},    // its end
			{-1000, "one", nil, 1}, // the clock was set back: such a claim could not have been made
			{-1000, "two", nil, 0}, //
			{-1000, "two", func() error { return tx.Release("one") }, 1},
			{-990, "one", func() error { return tx.PutUpgrade(row) }, 0}, // not due yet
			{0, "one", nil, 1},
			{100, "two", func() error { return tx.Renew(id, "one", now.Add(130)) }, 0},
			{130, "two", nil, 1},
			{131, "one", func() error { return tx.PutUpgrade(row) }, 1}, // a write ends a claim
			{132, "two", func() error { return tx.Wake(now, []workflow.State{workflow.StateDraft}) }, 0},
		} {
			if step.at == -1000 {
				if err := tx.Wake(now.Add(-2000), []workflow.State{workflow.StateApplying}); err != nil {
					return err
				}
			}
			if step.do != nil {
				if err := step.do(); err != nil {
					return fmt.Errorf("step %d: %w", i, err)
				}
			}
			if got := claim(tx, step.at, step.who); got != step.want {
				return fmt.Errorf("step %d claimed %d rows, want %d", i, got, step.want)
			}
		}
		if err := tx.Renew(id, "nobody", now); !errors.Is(err, workflow.ErrNotFound) {
			return fmt.Errorf("renewed nobody's claim: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func spendingPatchesAndEmergencies(t *testing.T, open Open) {
	s := open.with(t)
	now := envelope.TimeOf(time.Unix(1_800_000_000, 0))
	patch := envelope.DigestOf([]byte("patch"))
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		for _, n := range []int64{5, 7, envelope.MaxInt} {
			if err := tx.AddSpent("web", "2026-05", upgrade.Cost{Currency: "EUR", MinorUnits: n}); err != nil {
				return err
			}
		}
		if err := tx.AddSpent("web", "2026-05", upgrade.Cost{Currency: "CHF", MinorUnits: 1}); err != nil {
			return err
		}
		if err := tx.AddSpent("web", "2026-05", upgrade.Cost{Currency: "EUR", MinorUnits: -1}); err == nil {
			return errors.New("a negative cost was added")
		}
		costs, err := tx.Spent("web", "2026-05")
		if err != nil || len(costs) != 2 || costs[0] != (upgrade.Cost{Currency: "CHF", MinorUnits: 1}) || costs[1].MinorUnits != envelope.MaxInt {
			return fmt.Errorf("spent %v: %w", costs, err)
		}
		if costs, err = tx.Spent("web", "2026-06"); err != nil || len(costs) != 0 {
			return fmt.Errorf("spent in another month %v: %w", costs, err)
		}
		for i, other := range []envelope.Digest{patch, patch, envelope.DigestOf([]byte("other"))} {
			u := workflow.Upgrade{ID: envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-00000000001%d", i)), Patch: other, State: workflow.StateDraft, CreatedAt: now,
				Case: upgrade.CaseEmergency, RatifyBy: &now, RollbackID: id, Ratifying: patch}
			if err := tx.PutUpgrade(u); err != nil {
				return err
			}
			if got, err := tx.Upgrade(u.ID); err != nil || got.Case != u.Case || *got.RatifyBy != now || got.RollbackID != id || got.Ratifying != patch || got.Patch != other {
				return fmt.Errorf("%+v came back: %w", got, err)
			}
		}
		test := record("result")
		test.Patch, test.UpgradeID = patch, "0b7f1d5e-3c1a-4c57-9d0e-000000000010"
		if _, err := tx.AddRecord(test); err != nil {
			return err
		}
		for i, want := range []int{1, 1, 0} {
			list, err := tx.Records(envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-00000000001%d", i)))
			if err != nil || len(list) != want {
				return fmt.Errorf("upgrade %d has %d records: %w", i, len(list), err)
			}
		}
		list, _, err := tx.Upgrades(workflow.Page{Patch: patch, States: []workflow.State{workflow.StateDraft}})
		if err != nil || len(list) != 2 {
			return fmt.Errorf("%d upgrades of the patch: %w", len(list), err)
		}
		if err := tx.PutTarget(workflow.Target{Name: "web", Live: upgrade.None, Emergencies: []envelope.UUID{id, list[0].ID}}); err != nil {
			return err
		}
		target, err := tx.Target("web")
		if err != nil || len(target.Emergencies) != 2 || target.Emergencies[0] != id {
			return fmt.Errorf("%v: %w", target.Emergencies, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
