package commandpad

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/changes"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	// maxCompared is the largest artifact that a page compares, in bytes.
	maxCompared = 32 << 20
	// maxRemembered is how many comparisons are kept.
	maxRemembered = 64
)

// comparisons remembers what was compared: artifacts are named by content, so
// a pair of names has one answer for ever. One comparison runs at a time.
type comparisons struct {
	artifacts workflow.Artifacts

	mu   sync.Mutex
	done map[pair]*changes.Set
}

type pair struct {
	base upgrade.Revision
	next envelope.Digest
}

// of is what a patch changes upon base. What cannot be compared is a note for
// people; err is the store's.
func (c *comparisons) of(ctx context.Context, base upgrade.Revision, next envelope.Digest) (*changes.Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := pair{base, next}
	if set, ok := c.done[key]; ok {
		return set, nil
	}
	set, err := c.compare(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(c.done) >= maxRemembered {
		clear(c.done)
	}
	c.done[key] = set
	return set, nil
}

func (c *comparisons) compare(ctx context.Context, key pair) (*changes.Set, error) {
	after, err := c.load(ctx, key.next)
	if err != nil {
		return note(err)
	}
	var before *changes.Source
	digest, live := key.base.Digest()
	if live {
		if before, err = c.load(ctx, digest); err != nil {
			return note(err)
		}
	}
	set, err := changes.Compare(before, *after, changes.DefaultLimits())
	if err != nil {
		return &changes.Set{Note: fmt.Sprintf("It cannot be compared here: %v.", err)}, nil
	}
	return set, nil
}

var errLarge = errors.New("too large for a page")

func (c *comparisons) load(ctx context.Context, digest envelope.Digest) (*changes.Source, error) {
	r, size, err := c.artifacts.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxCompared {
		return nil, errLarge
	}
	data, err := io.ReadAll(r)
	return &changes.Source{ReaderAt: bytes.NewReader(data), Size: int64(len(data))}, err
}

func note(err error) (*changes.Set, error) {
	switch {
	case errors.Is(err, errLarge):
		return &changes.Set{Note: "It is too large to be compared here. kgctl upgrade diff compares it on your machine."}, nil
	case errors.Is(err, workflow.ErrNotFound):
		return &changes.Set{Note: "The artifact, or the one that is live, is not in the store, so nothing can be compared."}, nil
	}
	return nil, err
}
