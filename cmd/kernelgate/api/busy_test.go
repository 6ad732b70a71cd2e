package api_test

import (
	"fmt"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// A device whose queue is full, or a guard that turns callers away, is 503 with
// a time to come back, whatever was asked, and not a word of the inside.
func TestSaturatedDevice(t *testing.T) {
	for name, err := range map[string]error{
		"device": fmt.Errorf("pkcs11:token=secret: %w", signer.ErrBusy),
		"guard":  fmt.Errorf("socket secret: %w", workflow.ErrGuardUnavailable),
		"away":   fmt.Errorf("secret: %w", signer.ErrUnavailable),
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			g.engine.fail = err
			_, submitted := g.client(t, "requestor").Submit(t.Context(), g.manifest(t))
			published := g.client(t, "approver").PublishRegistry(t.Context(), keyregistry.SignedDocument{Document: []byte("{}"), Statement: signedStatement(t, g)})
			for call, err := range map[string]error{"a record": submitted, "a registry": published} {
				p := wantCode(t, err, 503, "unavailable")
				if p.RetryAfter <= 0 {
					t.Errorf("%s: 503 without Retry-After", call)
				}
				if p.Detail != "something that is needed does not answer at the moment; try again" {
					t.Errorf("%s: it says %q", call, p.Detail)
				}
			}
			g.engine.fail = nil
			_, err := g.client(t, "requestor").Submit(t.Context(), g.manifest(t))
			check(t, err)
		})
	}
}

func signedStatement(t *testing.T, g *gateway) envelope.Envelope {
	t.Helper()
	env, err := envelope.Seal(t.Context(), g.engine.key, envelope.TypeRegistryStatement, struct{}{})
	check(t, err)
	return env
}
