package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// manifestFlags: what is text in a manifest is bound to the manifest itself.
type manifestFlags struct {
	m                                  upgrade.Manifest
	kernelID, id, target, base, kind   string
	upgradeID, rollbackOf, rollbackWhy string
	cost                               string
	artifact, key, file                string
}

func (a *app) manifestCommand() *cobra.Command {
	cmd := group("manifest", "Describe a change", "A manifest says what an upgrade changes, why, and what it needs.")
	cmd.AddCommand(a.manifestCreate())
	return cmd
}

func (a *app) manifestCreate() *cobra.Command {
	var f manifestFlags
	cmd := &cobra.Command{
		Use:   "create --artifact FILE --key URI ... -f FILE",
		Short: "Make and sign a manifest; the patchHash is computed from the artifact",
		Example: `  kgctl manifest create --kernel-id prod --id ryan --type code --target scheduler --repository git.example/kernel --path sched --commit COMMIT \
    --base none --rationale "Fix starvation" --component scheduler --downtime none --test unit --artifact change.tar --key "$URI" -f manifest.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "kernel-id", "id", "type", "target", "base", "rationale", "component", "downtime", "artifact", "key", "file"); err != nil {
				return err
			}
			return a.createManifest(cmd.Context(), f)
		},
	}
	f.flags(cmd)
	s := cmd.Flags()
	s.StringVar(&f.kernelID, "kernel-id", "", "ID of the Kernel")
	s.StringVar(&f.id, "id", "", "your ID in the registry")
	s.StringVar(&f.base, "base", "", "patchHash that is live at the target, or none")
	s.StringVar(&f.rollbackOf, "rollback-of", "", "upgrade that a rollback takes back")
	s.StringVar(&f.rollbackWhy, "rollback-reason", "", "why it is taken back")
	s.StringVarP(&f.file, "file", "f", "", "file to write")
	return cmd
}

// flags are those of any proposal, with a gateway or without.
func (f *manifestFlags) flags(cmd *cobra.Command) {
	s, m := cmd.Flags(), &f.m
	s.StringVar(&f.kind, "type", "", "code, manifest, policy or rollback")
	s.StringVar(&f.upgradeID, "upgrade-id", "", "UUID of the upgrade (default a new one)")
	s.StringVar(&f.target, "target", "", "name of the target")
	s.StringVar(&m.Target.Repository, "repository", "", "repository of the target")
	s.StringVar(&m.Target.Path, "path", "", "path in the repository")
	s.StringVar(&m.Target.Commit, "commit", "", "commit of the repository")
	s.StringVar(&m.Target.ManifestID, "manifest-id", "", "target's manifest, in place of repository, path and commit")
	s.StringVar(&m.Rationale, "rationale", "", "why")
	s.StringArrayVar(&m.Impact.Components, "component", nil, "component touched; may be repeated")
	s.StringVar(&m.Impact.Downtime, "downtime", "", "downtime expected")
	s.StringVar(&f.cost, "cost", "", "cost in the currency's minor units, such as 1250EUR for 12.50 euro")
	s.StringArrayVar(&m.Preconditions.Tests, "test", nil, "test that must pass; may be repeated")
	s.StringVar(&f.artifact, "artifact", "", "artifact file")
	s.StringVar(&f.key, "key", "", "URI of your key")
}

// manifest parses what is not text.
func (f manifestFlags) manifest() (*upgrade.Manifest, error) {
	m := f.m
	if f.upgradeID == "" {
		f.upgradeID = uuid.NewString()
	}
	m.Type = upgrade.Type(f.kind)
	m.Preconditions.Approvals = upgrade.Quorum
	for _, p := range []struct {
		flag, text string
		into       interface{ UnmarshalText([]byte) error }
	}{{"kernel-id", f.kernelID, &m.KernelID}, {"id", f.id, &m.ProposedBy}, {"target", f.target, &m.Target.Name},
		{"base", f.base, &m.BaseRevision}, {"upgrade-id", f.upgradeID, &m.UpgradeID}} {
		if err := p.into.UnmarshalText([]byte(p.text)); err != nil {
			return nil, usagef("--%s: %w", p.flag, err)
		}
	}
	if m.Preconditions.Tests == nil {
		m.Preconditions.Tests = []string{}
	}
	if f.cost != "" {
		m.Impact.Cost = new(upgrade.Cost)
		if n, err := fmt.Sscanf(f.cost, "%d%3s", &m.Impact.Cost.MinorUnits, &m.Impact.Cost.Currency); n != 2 || err != nil || fmt.Sprintf("%d%s", m.Impact.Cost.MinorUnits, m.Impact.Cost.Currency) != f.cost {
			return nil, usagef("--cost %.40q is no amount such as 1250EUR", f.cost)
		}
	}
	if f.rollbackOf != "" {
		m.Rollback = &upgrade.Rollback{Reason: f.rollbackWhy}
		if err := m.Rollback.UpgradeID.UnmarshalText([]byte(f.rollbackOf)); err != nil {
			return nil, usagef("--rollback-of: %w", err)
		}
	}
	return &m, nil
}

func (a *app) createManifest(ctx context.Context, f manifestFlags) error {
	m, err := f.manifest()
	if err != nil {
		return err
	}
	if m.PatchHash, err = hashFile(f.artifact); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	s, err := a.openKey(ctx, f.key)
	if err != nil {
		return err
	}
	defer s.Close()
	m.KeyID, m.Timestamp = envelope.KeyID(s.Public().KeyID()), a.time()
	env, err := envelope.Seal(ctx, s, envelope.TypeManifest, m)
	if err != nil {
		return err
	}
	if _, err := upgrade.OpenManifest(env); err != nil {
		return err
	}
	if err := writeNew(f.file, env.Bytes()); err != nil {
		return err
	}
	digest := env.PayloadDigest()
	words := fingerprint(digest, m.PatchHash)
	return a.show(map[string]string{"manifestDigest": digest.String(), "patchHash": m.PatchHash.String(), "upgradeId": string(m.UpgradeID), "words": words},
		[][]string{{"upgrade", string(m.UpgradeID)}, {"manifest", digest.String()}, {"patch", m.PatchHash.String()}, {"words", words}})
}
