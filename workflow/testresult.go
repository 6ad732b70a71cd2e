package workflow

import (
	"context"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

var openStates = []State{StateDraft, StatePaused, StatePendingApproval, StateQuorumReached}

// submitTest takes a test result for every open upgrade of its patch.
func (e *Engine) submitTest(ctx context.Context, env envelope.Envelope) (Result, error) {
	now := e.now()
	patch, err := patchOf(env)
	if err != nil {
		return Result{}, err
	}
	decisions := map[envelope.UUID]*upgrade.PolicyDecision{}
	var list []*dossier
	spent := map[envelope.UUID][]upgrade.Cost{}
	err = e.Store.View(ctx, func(r Reader) error {
		list, err = e.withPatch(r, patch, now)
		for _, d := range list {
			if err == nil {
				spent[d.ID], err = r.Spent(d.Target, month(now))
			}
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	for _, d := range list {
		in, err := d.verify(KindTestResult, opened{envelope: env}, now)
		if err != nil {
			return Result{}, err
		}
		in.apply(d)
		decisions[d.ID] = e.decide(ctx, d, upgrade.CaseQuorum, spent[d.ID], now)
	}
	err = e.update(ctx, func(tx Tx) error {
		if list, err = e.withPatch(tx, patch, now); err != nil {
			return err
		}
		for i, d := range list {
			in, err := d.verify(KindTestResult, opened{envelope: env}, now)
			if err != nil {
				return err
			}
			if i == 0 {
				if err := d.keepTest(tx, in, patch, now); err != nil {
					return err
				}
			}
			if err := d.take(tx, in, decisions[d.ID], now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	return Result{Digest: env.PayloadDigest(), UpgradeID: list[0].ID, State: list[0].State, Added: true}, nil
}

// keepTest stores the result once; by its patch it is a record of every
// upgrade with that patch, later ones included.
func (d *dossier) keepTest(tx Tx, in incoming, patch envelope.Digest, now envelope.Time) error {
	added, err := tx.AddRecord(Record{Digest: in.envelope.PayloadDigest(), UpgradeID: d.ID, Kind: KindTestResult, Person: in.person,
		SignedAt: now, ReceivedAt: now, Patch: patch, Body: in.envelope.Bytes()})
	if err == nil && !added {
		err = errKnown
	}
	return err
}

func patchOf(env envelope.Envelope) (envelope.Digest, error) {
	var claim struct {
		Subject []struct {
			Digest struct {
				SHA256 string `json:"sha256"`
			} `json:"digest"`
		} `json:"subject"`
	}
	if err := envelope.DecodeForeign(env.Payload, &claim); err != nil {
		return envelope.Digest{}, err
	}
	if len(claim.Subject) != 1 {
		return envelope.Digest{}, failure.New(failure.FieldInvalid, "a test result has exactly one subject")
	}
	return envelope.ParseDigest("sha256:" + claim.Subject[0].Digest.SHA256)
}

// withPatch is every open upgrade with a patch, by the store's index.
func (e *Engine) withPatch(r Reader, patch envelope.Digest, now envelope.Time) ([]*dossier, error) {
	var out []*dossier
	page := Page{Patch: patch, States: openStates, Limit: 100}
	for {
		list, next, err := r.Upgrades(page)
		if err != nil {
			return nil, err
		}
		for _, u := range list {
			d, err := e.load(r, u.ID, now)
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
		if next == "" {
			break
		}
		page.Cursor = next
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no open upgrade has the patch %s; propose it first, or report on the very file that was proposed", ErrConflict, patch)
	}
	return out, nil
}
