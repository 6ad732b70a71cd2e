package bench

import (
	"context"
	"sync"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// depot is targets that cost nothing.
type depot struct {
	mu   sync.Mutex
	live map[envelope.ID]upgrade.Revision
}

func newDepot() *depot { return &depot{live: map[envelope.ID]upgrade.Revision{}} }

func (d *depot) Live(_ context.Context, target envelope.ID) (upgrade.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.live[target]; ok {
		return r, nil
	}
	return upgrade.None, nil
}

func (d *depot) Apply(_ context.Context, c workflow.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[c.Target.Name] = upgrade.RevisionOf(c.Patch)
	return nil
}
