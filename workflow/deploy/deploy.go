// Package deploy changes targets. It implements workflow.Deployer:
//
//	Set      routes each target to the deployer that the operator configured
//	Release  unpacks into releases/<hex> and switches the symlink "current"
//	Git      commits to a branch that a GitOps engine follows
//	Exec     runs the operator's own program
//
// Every deployer reads what is live from the target itself and keeps no state
// of its own, so an outcome that nobody saw is resolved by asking Live.
package deploy

import (
	"context"
	"fmt"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Set is the deployers by target name. It is read-only once it is in use.
type Set map[envelope.ID]workflow.Deployer

var _ workflow.Deployer = Set(nil)

// Live asks the target's deployer. workflow.ErrUnknownTarget where none is configured.
func (s Set) Live(ctx context.Context, target envelope.ID) (upgrade.Revision, error) {
	d, err := s.of(target)
	if err != nil {
		return "", err
	}
	return d.Live(ctx, target)
}

// Apply hands the change to its target's deployer. workflow.ErrUnknownTarget
// where none is configured.
func (s Set) Apply(ctx context.Context, change workflow.Change) error {
	d, err := s.of(change.Target.Name)
	if err != nil {
		return err
	}
	return d.Apply(ctx, change)
}

func (s Set) of(target envelope.ID) (workflow.Deployer, error) {
	if d := s[target]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %q; add it to the gateway's configuration, or correct the manifest's target.name", workflow.ErrUnknownTarget, target)
}

// step says what is to be done where live is what the target runs: nothing, or
// the change; workflow.ErrBaseMoved where it fits neither.
func step(live upgrade.Revision, change workflow.Change) (done bool, err error) {
	switch live {
	case upgrade.RevisionOf(change.Patch):
		return true, nil
	case change.Base:
		return false, nil
	}
	return false, fmt.Errorf("%w: %s is live, the change is from %s to %s", workflow.ErrBaseMoved, live, change.Base, change.Patch)
}
