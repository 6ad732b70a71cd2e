package workflow

import (
	"context"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// requirePinnable refuses a registry document that pins a policy, where the
// engine asks one whose rules nobody here can compare with the pin.
func (e *Engine) requirePinnable(reg *keyregistry.Registry) error {
	pinned := reg.Rules().PolicyDigest
	if _, opaque := e.Policy.(Opaque); opaque && pinned != nil {
		return failure.New(failure.PolicyDenied, "registry version %d pins policy %s, and this gateway asks a policy server, whose rules cannot be compared with that; load the policy itself (policy.dir) first", reg.Version(), pinned)
	}
	return nil
}

// CheckPolicy refuses to work with a policy that the registry's pin excludes,
// and says in the log where another than the pinned one is loaded: then nothing
// can be signed before the right one is, or a registry document pins this one.
func (e *Engine) CheckPolicy(ctx context.Context) error {
	return e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err != nil {
			return err
		}
		last := regs.Last()
		if err := e.requirePinnable(last); err != nil {
			return err
		}
		if pinned := last.Rules().PolicyDigest; pinned != nil && *pinned != e.Policy.Digest() {
			e.Logger.ErrorContext(ctx, "the registry pins another policy than the one that is loaded; no upgrade can be signed", "pinned", pinned, "loaded", e.Policy.Digest())
		}
		return nil
	})
}
