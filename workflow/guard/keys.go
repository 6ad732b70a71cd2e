package guard

import (
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// CheckKeys refuses keys that the newest registry document does not list for
// their purpose. A key outside its validity passes: it signs nothing, but a
// guard must run to accept the document that prolongs it. Without a memory
// there is nothing to compare.
func (g *Guard) CheckKeys() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mem == nil {
		return nil
	}
	return errors.Join(g.checkKey("records", g.config.Records, keyregistry.KindKernelRecords), g.checkKey("audit", g.config.Audit, keyregistry.KindKernelAudit))
}

func (g *Guard) checkKey(purpose string, s signer.Signer, kind keyregistry.Kind) error {
	entry, err := g.mem.regs.Last().Lookup(envelope.KeyID(s.Public().KeyID()))
	if err == nil {
		err = entry.Require(keyregistry.KernelHolder, kind)
	}
	if err != nil {
		return fmt.Errorf("guard: the %s key %s: %w", purpose, s.Public().KeyID(), err)
	}
	return nil
}
