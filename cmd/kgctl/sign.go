package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

type decisionFlags struct {
	manifest, artifact, key, text, file string
	registries                          []string
	preapprove                          bool
}

func (a *app) signCommand() *cobra.Command {
	cmd := group("sign", "Approve or reject a change on a machine without a network", `Every digest is computed again from the files' bytes; the registry is verified from the pinned root, and the
proposer's signature by it. The record goes to the gateway by kgctl record submit, from any machine.`)
	cmd.AddCommand(a.decide("approve", "notes"), a.decide("reject", "reason"))
	return cmd
}

func (a *app) decide(verb, text string) *cobra.Command {
	var f decisionFlags
	cmd := &cobra.Command{
		Use:     verb + " --manifest FILE --artifact FILE --root DIGEST --registry FILE... --key URI -f FILE",
		Short:   "Sign a record: " + verb + " the change",
		Example: "  kgctl sign " + verb + ` --manifest m.json --artifact change.tar --root sha256:... --registry registry.json --key "$URI" --` + text + ` "read it all" -f decision.json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "manifest", "artifact", "registry", "key", "file"); err != nil {
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
	s.StringArrayVar(&f.registries, "registry", nil, "registry file; repeated, oldest first, to the one in force")
	s.StringVar(&f.key, "key", "", "URI of your key")
	s.StringVar(&f.text, text, "", text+", for everyone to read")
	s.StringVarP(&f.file, "file", "f", "", "file to write")
	if verb == "approve" {
		s.BoolVar(&f.preapprove, "preapprove-rollback", false, "also approve the rollback, should the canary fail")
	}
	return cmd
}

func (a *app) signDecision(ctx context.Context, verb string, f decisionFlags) error {
	if verb == "reject" && f.text == "" {
		return usagef("--reason is empty")
	}
	if err := optionalText("text", f.text); err != nil {
		return err
	}
	reg, err := a.offlineRegistry(f.registries)
	if err != nil {
		return err
	}
	c, err := readChange(f.manifest, f.artifact)
	if err != nil {
		return err
	}
	if _, err := upgrade.VerifyManifest(reg, c.envelope, a.time()); err != nil {
		return fmt.Errorf("manifest %s: %w", f.manifest, err)
	}
	a.sayProposal(c.manifest)
	a.say("  %-10s %s (signature verified, registry version %d)", "Proposer", c.manifest.ProposedBy, reg.Version())
	a.say("  %-10s %s", "Words", fingerprint(c.digest, c.patch))
	if err := a.confirm(ctx, "Sign exactly this ("+verb+")?"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	key, err := a.openKey(ctx, f.key)
	if err != nil {
		return err
	}
	defer key.Close()
	s := &session{regs: keyregistry.Chain{reg}}
	id, err := a.signatory(s, envelope.KeyID(key.Public().KeyID()), keyregistry.KindApprover)
	if err != nil {
		return err
	}
	payloadType, record := a.decision(verb, f, c, id, reg.Digest(), key)
	env, err := envelope.Seal(ctx, key, payloadType, record)
	if err != nil {
		return err
	}
	if err := writeNew(f.file, env.Bytes()); err != nil {
		return err
	}
	digest := env.PayloadDigest().String()
	return a.show(map[string]string{"recordDigest": digest}, [][]string{{digest}})
}

// offlineRegistry is the newest of the files, accepted from --root on.
func (a *app) offlineRegistry(files []string) (*keyregistry.Registry, error) {
	root, err := envelope.ParseDigest(a.connection.root)
	if err != nil {
		return nil, usagef("--root: the pinned digest of registry version 1 is needed: %w", err)
	}
	entries := make([]keyregistry.SignedDocument, 0, len(files))
	for _, path := range files {
		f, err := readRegistry(path)
		if err != nil {
			return nil, err
		}
		entries = append(entries, f.SignedDocument)
	}
	regs, err := keyregistry.AcceptChain(root, entries)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return regs.Last(), nil
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
