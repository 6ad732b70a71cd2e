package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// deciding is one record that an approver signs about an upgrade.
type deciding struct {
	id            envelope.UUID
	key, artifact string
	question      string
	remark        string // what is signed beside the decision, where another than the signer typed it
	approving     bool   // refused while the policy denies
	emergency     bool   // roles superadmin and security-engineer only
	record        composer
}

// composer composes what is signed.
type composer func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (payloadType string, record any)

func (d *deciding) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.key, "key", "", "URI of your key")
	cmd.Flags().StringVar(&d.artifact, "artifact", "", "the artifact, where you have it; else it is downloaded")
}

// prepare takes the upgrade's ID from the command line.
func (d *deciding) prepare(cmd *cobra.Command, args []string, flags ...string) error {
	if err := need(cmd, append(flags, "key")...); err != nil {
		return err
	}
	return parseUUID(args[0], &d.id)
}

// settle reads, verifies, shows, asks, looks again, signs and submits.
func (a *app) settle(ctx context.Context, d deciding) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	r, err := a.read(ctx, s, d.id)
	if err != nil {
		return err
	}
	files, err := a.inspect(ctx, s, r.manifest, d.artifact)
	if err != nil {
		return err
	}
	a.sayIntent(r, files)
	if d.remark != "" {
		a.say("  %-10s %s", "You say", indented(d.remark))
	}
	if !r.open() {
		return fmt.Errorf("%w: the upgrade is %s, and takes no decisions any more", errChanged, r.state())
	}
	if d.approving && r.policy != nil && !r.policy.Allow {
		return failure.New(failure.PolicyDenied, "approvals are refused while the policy denies; see kgctl policy explain %s", d.id)
	}
	if d.approving && !d.emergency && r.state() == client.Draft {
		return fmt.Errorf("the upgrade is a draft, which takes no approvals yet: kgctl upgrade submit %s", d.id)
	}
	if err := a.confirm(ctx, d.question); err != nil {
		return err
	}
	env, err := a.signDecisionOn(ctx, s, r, d)
	if err != nil {
		return err
	}
	return a.submit(ctx, s.Client, env)
}

func (a *app) signDecisionOn(ctx context.Context, s *session, r *reading, d deciding) (envelope.Envelope, error) {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	key, err := a.openKey(ctx, d.key)
	if err != nil {
		return envelope.Envelope{}, err
	}
	defer key.Close()
	id := envelope.KeyID(key.Public().KeyID())
	who, err := a.signatory(s, id, keyregistry.KindApprover)
	if err != nil {
		return envelope.Envelope{}, err
	}
	if p, ok := s.registry().Approver(who); d.emergency && (!ok || !p.Role.MayTriggerEmergency()) {
		return envelope.Envelope{}, failure.New(failure.RoleNotAllowed, "%s may not trigger an emergency: a superadmin or a security engineer must", who)
	}
	laterSession, err := a.open(ctx)
	if err != nil {
		return envelope.Envelope{}, err
	}
	later, err := a.read(ctx, laterSession, d.id)
	if err != nil {
		return envelope.Envelope{}, err
	}
	if err := r.same(s, later, laterSession); err != nil {
		return envelope.Envelope{}, err
	}
	payloadType, record := d.record(r, s, who, id, a.time())
	return envelope.Seal(ctx, key, payloadType, record)
}

// signatory is whose key it is; it must be of one of the kinds, valid now and
// not suspended.
func (a *app) signatory(s *session, key envelope.KeyID, kinds ...keyregistry.Kind) (envelope.ID, error) {
	entry, err := s.registry().Lookup(key)
	if err != nil {
		return "", err
	}
	if err := entry.Require(entry.ID, kinds...); err != nil {
		return "", fmt.Errorf("%w; it takes a key of: %v", err, kinds)
	}
	if s.suspended[key] {
		return "", failure.New(failure.KeySuspended, "key %s of %s is suspended", key, entry.ID)
	}
	return entry.ID, entry.RequireValid(a.time())
}

// submit posts a record and shows the receipt, which must be for that record.
func (a *app) submit(ctx context.Context, gateway *client.Client, env envelope.Envelope) error {
	receipt, err := gateway.Submit(ctx, env)
	if err != nil {
		return err
	}
	if receipt.RecordDigest != env.PayloadDigest().String() {
		return failure.New(failure.BindingMismatch, "the gateway's receipt is for another record than the one that was sent")
	}
	rows := [][]string{{"record", receipt.RecordDigest}}
	if receipt.UpgradeId != nil {
		rows = append(rows, []string{"upgrade", foreign(*receipt.UpgradeId)})
	}
	if receipt.State != nil {
		rows = append(rows, []string{"state", foreign(string(*receipt.State))})
	}
	if !receipt.Added {
		a.say("The gateway had this record already.")
	}
	return a.show(receipt, rows)
}
