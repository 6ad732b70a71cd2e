package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func cost(currency string, n int64) upgrade.Cost {
	return upgrade.Cost{Currency: currency, MinorUnits: n}
}

func registryAndSuspensions(t *testing.T, open Open) {
	s := open.with(t)
	fixture := registrytest.New(envelope.TimeOf(time.Now()))
	of, other := envelope.DigestOf([]byte("one")), envelope.DigestOf([]byte("other"))
	var envs []envelope.Envelope
	for i := range 3 {
		envs = append(envs, envelope.Envelope{Payload: []byte(fmt.Sprintf("{\"n\":%d}", i)), PayloadType: "x",
			Signatures: []envelope.Signature{{KeyID: envelope.KeyID(strings.Repeat("0", 64)), Sig: []byte{1}}}})
	}
	update(t, s, func(tx workflow.Tx) error {
		if err := tx.AddRegistry(1, fixture.Entries[0]); err != nil {
			return err
		}
		return errors.Join(tx.AddSuspension(envs[2], of), tx.AddSuspension(envs[0], other), tx.AddSuspension(envs[1], of))
	})
	view(t, s, func(r workflow.Reader) error {
		entries, err := r.Registry()
		if err != nil || len(entries) != 1 || !slices.Equal(entries[0].Document, fixture.Entries[0].Document) || !slices.Equal(entries[0].Statement.Bytes(), fixture.Entries[0].Statement.Bytes()) {
			t.Errorf("%d entries came back: %v", len(entries), err)
		}
		list, err := r.Suspensions(of)
		if err != nil || len(list) != 2 || list[0].PayloadDigest() != envs[2].PayloadDigest() || list[1].PayloadDigest() != envs[1].PayloadDigest() {
			t.Errorf("%d suspensions came back: %v", len(list), err)
		}
		return err
	})
}

// checkpoints: the first of a size stays; the same with cosignatures stands
// beside it, once; another is not taken.
func checkpoints(t *testing.T, open Open) {
	type cosigned interface {
		CosignedCheckpoint() (note string, size int64, err error)
	}
	s := open.with(t)
	view(t, s, func(r workflow.Reader) error {
		_, _, err := r.Checkpoint()
		_, _, other := r.(cosigned).CosignedCheckpoint()
		if !errors.Is(err, workflow.ErrNotFound) || !errors.Is(other, workflow.ErrNotFound) {
			t.Errorf("of an empty log: %v, %v", err, other)
		}
		return nil
	})
	for i, step := range []struct {
		note           string
		size           int64
		last, cosigned string
	}{
		{"five\n", 5, "five\n", ""},
		{"other\n", 5, "five\n", ""},
		{"five\nby w1\n", 5, "five\nby w1\n", "five\nby w1\n"},
		{"five\nby w2\n", 5, "five\nby w1\n", "five\nby w1\n"},
		{"nine\n", 9, "nine\n", "five\nby w1\n"},
		{"seven\n", 7, "nine\n", "five\nby w1\n"}, // of another gateway, later
	} {
		update(t, s, func(tx workflow.Tx) error { return tx.PutCheckpoint(step.note, step.size) })
		view(t, s, func(r workflow.Reader) error {
			last, _, err := r.Checkpoint()
			seen, _, other := r.(cosigned).CosignedCheckpoint()
			if err != nil || last != step.last || seen != step.cosigned || (other == nil) != (step.cosigned != "") {
				t.Errorf("step %d: %q, %q: %v, %v", i, last, seen, err, other)
			}
			return nil
		})
	}
}

func cursors(t *testing.T, open Open) {
	s := open.with(t)
	for _, next := range []int64{0, 3, 8} {
		if next > 0 {
			update(t, s, func(tx workflow.Tx) error { return tx.PutCursor("bus", next) })
		}
		view(t, s, func(r workflow.Reader) error {
			got, err := r.Cursor("bus")
			other, otherErr := r.Cursor("notify")
			if got != next || other != 0 || err != nil || otherErr != nil {
				t.Errorf("the cursors are %d, %d, not %d, 0: %v, %v", got, other, next, err, otherErr)
			}
			return nil
		})
	}
}
