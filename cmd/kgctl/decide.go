package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// deciding is one record that an approver signs about an upgrade.
type deciding struct {
	id            envelope.UUID
	key, artifact string
	question      string
	approving     bool // refused while the policy denies
	emergency     bool // roles superadmin and security-engineer only
	// record composes what is signed.
	record func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (payloadType string, record any)
}

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
	if !r.open() {
		return fmt.Errorf("%w: the upgrade is %s, and takes no decisions any more", errChanged, r.state())
	}
	if d.approving && r.policy != nil && !r.policy.Allow {
		return failure.New(failure.PolicyDenied, "approvals are refused while the policy denies; see kgctl policy explain %s", d.id)
	}
	if err := a.confirm(d.question); err != nil {
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
		return "", err
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

func (a *app) approveCommand() *cobra.Command {
	d := deciding{approving: true, question: "Approve exactly this?"}
	var notes string
	var preapprove bool
	cmd := &cobra.Command{
		Use: "approve ID --key URI", Short: "Approve an upgrade", Args: oneUpgrade,
		Long: `Approve an upgrade: its artifact is hashed here, its proposer's signature and the registry are
verified from the pinned root, all of it is shown in plain words, and then your key signs.`,
		Example: `  kgctl approve 0190a5e0-0000-7000-8000-000000000001 --key "$URI" --notes "Read it all"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args); err != nil {
				return err
			}
			if err := optionalText("notes", notes); err != nil {
				return err
			}
			d.record = func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
				m := r.manifest
				return envelope.TypeApproval, &upgrade.Approval{ApproverID: who, ApprovalTs: now, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
					Notes: notes, PatchHash: m.PatchHash, RegistryDigest: s.registry().Digest(), RollbackPreapproved: preapprove, UpgradeID: m.UpgradeID}
			}
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&notes, "notes", "", "for everyone to read")
	cmd.Flags().BoolVar(&preapprove, "preapprove-rollback", false, "also approve the rollback, should the canary fail")
	return cmd
}

func (a *app) rejectCommand() *cobra.Command {
	d := deciding{question: "Reject it?"}
	var reason string
	cmd := &cobra.Command{
		Use: "reject ID --reason TEXT --key URI", Short: "Reject an upgrade", Args: oneUpgrade,
		Example: `  kgctl reject 0190a5e0-0000-7000-8000-000000000001 --reason "Not before the holidays" --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args, "reason"); err != nil {
				return err
			}
			if err := envelope.CheckText("reason", reason, 1000); err != nil {
				return usageError{err}
			}
			d.record = func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
				m := r.manifest
				return envelope.TypeRejection, &upgrade.Rejection{ApproverID: who, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
					Reason: reason, RegistryDigest: s.registry().Digest(), RejectionTs: now, UpgradeID: m.UpgradeID}
			}
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everyone to read")
	return cmd
}

func (a *app) requestTestsCommand() *cobra.Command {
	d := deciding{question: "Ask for these tests?"}
	var tests []string
	var notes string
	cmd := &cobra.Command{
		Use: "request-tests ID --tests NAME... --key URI", Short: "Ask for further tests before you decide", Args: oneUpgrade,
		Example: `  kgctl request-tests 0190a5e0-0000-7000-8000-000000000001 --tests soak --tests fuzz --key "$URI"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.prepare(cmd, args, "tests"); err != nil {
				return err
			}
			for _, name := range tests {
				if err := envelope.CheckText("tests", name, 80); err != nil {
					return usageError{err}
				}
			}
			if len(tests) > 16 {
				return usagef("at most 16 tests can be asked for at once")
			}
			if err := optionalText("notes", notes); err != nil {
				return err
			}
			d.record = func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
				m := r.manifest
				return envelope.TypeTestRequest, &upgrade.TestRequest{ApproverID: who, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
					Notes: notes, RegistryDigest: s.registry().Digest(), RequestTs: now, Tests: tests, UpgradeID: m.UpgradeID}
			}
			return a.settle(cmd.Context(), d)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringSliceVar(&tests, "tests", nil, "names of tests; may be repeated")
	cmd.Flags().StringVar(&notes, "notes", "", "for everyone to read")
	return cmd
}

func optionalText(flag, text string) error {
	if text == "" {
		return nil
	}
	if err := envelope.CheckText(flag, text, 1000); err != nil {
		return usageError{err}
	}
	return nil
}
