package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

type decisionFlags struct {
	manifest, artifact, registry, key, id, text, file string
	preapprove                                        bool
}

func (a *app) signCommand() *cobra.Command {
	cmd := group("sign", "Approve or reject a change on a machine without a network", "Every digest is computed again from the files' bytes.")
	cmd.AddCommand(a.decide("approve", "notes"), a.decide("reject", "reason"))
	return cmd
}

func (a *app) decide(verb, text string) *cobra.Command {
	var f decisionFlags
	cmd := &cobra.Command{
		Use:     verb + " --manifest FILE --artifact FILE --registry-digest DIGEST --key URI --id ID -f FILE",
		Short:   "Sign a record: " + verb + " the change",
		Example: "  kgctl sign " + verb + ` --manifest m.json --artifact change.tar --registry-digest sha256:... --key "$URI" --id ryan --` + text + ` "read it all" -f decision.json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "manifest", "artifact", "registry-digest", "key", "id", "file"); err != nil {
				return err
			}
			if verb == "reject" {
				if err := need(cmd, "reason"); err != nil {
					return err
				}
			}
			return a.signDecision(cmd.Context(), verb, f)
		},
	}
	s := cmd.Flags()
	s.StringVar(&f.manifest, "manifest", "", "manifest envelope")
	s.StringVar(&f.artifact, "artifact", "", "artifact that it is about")
	s.StringVar(&f.registry, "registry-digest", "", "digest of the registry document in force")
	s.StringVar(&f.key, "key", "", "URI of your key")
	s.StringVar(&f.id, "id", "", "your ID in the registry")
	s.StringVar(&f.text, text, "", text+", for everyone to read")
	s.StringVarP(&f.file, "file", "f", "", "file to write")
	if verb == "approve" {
		s.BoolVar(&f.preapprove, "preapprove-rollback", false, "also approve the rollback, should the canary fail")
	}
	return cmd
}

func (a *app) signDecision(ctx context.Context, verb string, f decisionFlags) error {
	registry, err := envelope.ParseDigest(f.registry)
	if err != nil {
		return usagef("--registry-digest: %w", err)
	}
	var id envelope.ID
	if err := id.UnmarshalText([]byte(f.id)); err != nil {
		return usagef("--id: %w", err)
	}
	if f.text != "" {
		if err := envelope.CheckText("text", f.text, 1000); err != nil {
			return usageError{err}
		}
	} else if verb == "reject" {
		return usagef("--reason is empty")
	}
	c, err := readChange(f.manifest, f.artifact)
	if err != nil {
		return err
	}
	a.say("%s upgrade %s of %s: %q", verb, c.manifest.UpgradeID, c.manifest.Target.Name, c.manifest.Rationale)
	a.say("Words: %s", fingerprint(c.digest, c.patch))
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	s, err := a.openKey(ctx, f.key)
	if err != nil {
		return err
	}
	defer s.Close()
	payloadType, record := a.decision(verb, f, c, id, registry, s)
	env, err := envelope.Seal(ctx, s, payloadType, record)
	if err != nil {
		return err
	}
	if err := writeNew(f.file, env.Bytes()); err != nil {
		return err
	}
	digest := env.PayloadDigest().String()
	return a.show(map[string]string{"recordDigest": digest}, [][]string{{digest}})
}

func (a *app) decision(verb string, f decisionFlags, c *change, id envelope.ID, registry envelope.Digest, s signer.Signer) (string, any) {
	m, key := c.manifest, envelope.KeyID(s.Public().KeyID())
	if verb == "reject" {
		return envelope.TypeRejection, &upgrade.Rejection{ApproverID: id, KernelID: m.KernelID, KeyID: key, ManifestDigest: c.digest,
			Reason: f.text, RegistryDigest: registry, RejectionTs: a.time(), UpgradeID: m.UpgradeID}
	}
	return envelope.TypeApproval, &upgrade.Approval{ApproverID: id, ApprovalTs: a.time(), KernelID: m.KernelID, KeyID: key, ManifestDigest: c.digest,
		Notes: f.text, PatchHash: c.patch, RegistryDigest: registry, RollbackPreapproved: f.preapprove, UpgradeID: m.UpgradeID}
}
