package api_test

import (
	"errors"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// Whoever holds a key must be able to suspend it at once, whatever the role of
// the token; an auditor holds none.
func TestWhoMaySendASuspension(t *testing.T) {
	g := start(t)
	env := g.manifest(t)
	env.PayloadType = envelope.TypeKeySuspension
	for role, want := range map[string]bool{"approver": true, "requestor": true, "ci": true, "operator": true, "auditor": false} {
		_, err := g.client(t, role).Submit(t.Context(), env)
		var p *client.Error
		forbidden := errors.As(err, &p) && p.Status == 403
		if err == nil || forbidden == want {
			t.Errorf("%s: %v", role, err)
		}
	}
}
