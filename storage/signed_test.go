package storage

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/workflow"
)

// flipping is an event key whose n-th signature has a bit flipped.
type flipping struct {
	signer.Signer
	n int
}

func (f *flipping) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := f.Signer.Sign(ctx, message)
	if f.n--; f.n == 0 {
		sig[40] ^= 4
	}
	return sig, err
}

// No signature that does not verify gets into the log, nor anything beside it.
func TestBadSignatureIsNotStored(t *testing.T) {
	s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	three := func(tx workflow.Tx) error {
		for range 3 {
			if _, err := tx.AppendEvent(benchEvent()); err != nil {
				return err
			}
			if _, err := tx.Events(0, 1); err != nil { // one after the other
				return err
			}
		}
		return tx.PutCursor("follower", 7)
	}
	key := &flipping{registrytest.Key(signer.Ed25519), 3}
	s.SetEventKey(registrytest.KernelID, key)
	if err := s.Update(t.Context(), three); !errors.Is(err, signer.ErrBadSignature) {
		t.Fatalf("got %v", err)
	}
	check := func(size, cursor int64) {
		t.Helper()
		if err := s.View(t.Context(), func(r workflow.Reader) error {
			n, err := r.LogSize()
			at, cursorErr := r.Cursor("follower")
			if n != size || at != cursor {
				t.Errorf("%d events, cursor %d", n, at)
			}
			return errors.Join(err, cursorErr)
		}); err != nil {
			t.Fatal(err)
		}
	}
	check(0, 0)
	if err := s.Update(t.Context(), three); err != nil {
		t.Fatal(err)
	}
	check(3, 7)
}
