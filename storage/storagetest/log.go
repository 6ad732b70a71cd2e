package storagetest

import (
	"context"
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
	// What a transaction has read once it reads again where it wrote, or was undone.
	undone := errors.New("undone")
	both := func(end error) func(tx workflow.Tx) error {
		return func(tx workflow.Tx) error {
			before, _, err := tx.NewestRegistry()
			list, err2 := tx.Suspensions(of)
			if before != 0 || len(list) != 0 {
				t.Errorf("version %d, %d suspensions before there are any", before, len(list))
			}
			err = errors.Join(err, err2, tx.AddRegistry(1, fixture.Entries[0]), tx.AddSuspension(envs[2], of))
			after, document, err2 := tx.NewestRegistry()
			list, err3 := tx.Suspensions(of)
			if after != 1 || !slices.Equal(document, fixture.Entries[0].Document) || len(list) != 1 {
				t.Errorf("version %d, %d suspensions after one was added", after, len(list))
			}
			return errors.Join(err, err2, err3, end)
		}
	}
	if err := s.Update(context.Background(), both(undone)); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	update(t, s, both(nil))
	update(t, s, func(tx workflow.Tx) error {
		return errors.Join(tx.AddSuspension(envs[0], other), tx.AddSuspension(envs[1], of))
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

// checkpoints: the first of a size stays; cosignatures are added to it, one of
// each key, whenever they come; another note is not taken, nor what is no line.
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
	const five, w1, w1Again, w2, w1OtherKey = "five\n\n— log AAAAAAAA\n", "— w1 AAAAAAAA\n", "— w1 AAAAAAAB\n", "— w2 AAAAAAAA\n", "— w1 BAAAAAAA\n"
	for i, step := range []struct {
		note           string
		size           int64
		last, cosigned string
	}{
		{five, 5, five, ""},
		{five, 5, five, ""},
		{"other\n\n", 5, five, ""},
		{five + w2, 5, five + w2, five + w2},
		{five + w1, 5, five + w1 + w2, five + w1 + w2},
		{five + w1Again + w2 + w1OtherKey, 5, five + w1 + w1OtherKey + w2, five + w1 + w1OtherKey + w2},
		{five, 5, five + w1 + w1OtherKey + w2, five + w1 + w1OtherKey + w2},
		{"nine\n\n", 9, "nine\n\n", five + w1 + w1OtherKey + w2},
		{"seven\n\n", 7, "nine\n\n", five + w1 + w1OtherKey + w2}, // of another gateway, later
		{"seven\n\n" + w2, 7, "nine\n\n", "seven\n\n" + w2},
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
	for _, line := range []string{"w3 AAAAAAAA\n", "— w3 AAAAAAAA", "— w3\n", "— w3 AAAA\n", "— w3 !\n", "— w3  AAAAAAAA\n", "\n"} {
		if err := s.Update(t.Context(), func(tx workflow.Tx) error { return tx.PutCheckpoint("nine\n\n"+line, 9) }); err == nil {
			t.Errorf("%q is taken for a cosignature", line)
		}
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
