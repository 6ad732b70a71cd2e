package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) upgradeCreate() *cobra.Command {
	var f manifestFlags
	var signed string
	cmd := &cobra.Command{
		Use:   "create --artifact FILE --key URI ... | create --artifact FILE --manifest FILE",
		Short: "Propose an upgrade: artifact, manifest, signature, all in one",
		Long: `Propose an upgrade. The artifact is sent, and hashed here on its way; what is live at the target is
read from the gateway and proved by the bundle of the upgrade that made it so; the manifest is shown, signed and
submitted. With --manifest, one that was signed elsewhere (kgctl manifest create) is submitted.`,
		Example: `  kgctl upgrade create --type code --target web --manifest-id site --rationale "Fix the title" --component web \
    --downtime none --test unit --artifact site.tar.gz --key "$URI"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if signed != "" {
				if err := need(cmd, "artifact"); err != nil {
					return err
				}
				return a.createFromFile(cmd.Context(), signed, f.artifact)
			}
			if err := need(cmd, "type", "target", "rationale", "component", "downtime", "artifact", "key"); err != nil {
				return err
			}
			if f.kind == string(upgrade.TypeRollback) {
				return usagef("a rollback is made by kgctl rollback create")
			}
			return a.createUpgrade(cmd.Context(), f)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.base, "base", "", "patchHash that must be live at the target, or none (default: what is)")
	cmd.Flags().StringVar(&signed, "manifest", "", "manifest that is signed already")
	return cmd
}

func (a *app) createUpgrade(ctx context.Context, f manifestFlags) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	f.kernelID, f.id = string(s.registry().KernelID()), "nobody" // who it is the key says
	want := f.base
	f.base = string(upgrade.None)
	m, err := f.manifest()
	if err != nil {
		return err
	}
	if t := m.Target; t.ManifestID == "" && t.Repository == "" {
		return usagef("say what is to be live at %s: --manifest-id, or --repository, --path and --commit", t.Name)
	}
	if err := m.Check(); err != nil {
		return usageError{err}
	}
	if m.BaseRevision, _, err = a.live(ctx, s, m.Target.Name); err != nil {
		return err
	}
	if want != "" && want != string(m.BaseRevision) {
		return failure.New(failure.BaseRevisionMoved, "%s is live at %s, not %s", m.BaseRevision, m.Target.Name, foreign(want))
	}
	if m.PatchHash, err = hashFile(f.artifact); err != nil {
		return err
	}
	return a.proposeManifest(ctx, s, m, f.key, f.artifact)
}

// live is what is live at a target, proved by the bundle of the upgrade that
// made it so. That nothing ever was is the gateway's word.
func (a *app) live(ctx context.Context, s *session, target envelope.ID) (upgrade.Revision, *upgrade.FileVerdict, error) {
	t, err := s.Target(ctx, target)
	if err != nil {
		return "", nil, err
	}
	var revision upgrade.Revision
	if err := revision.UnmarshalText([]byte(t.Live)); err != nil {
		return "", nil, err
	}
	if revision == upgrade.None {
		a.say("The gateway says that nothing is live at %s yet.", target)
		return revision, nil, nil
	}
	if t.LiveUpgrade == nil {
		return "", nil, failure.New(failure.BundleMismatch, "the gateway says that %s is live at %s, but names no upgrade that made it so", revision, target)
	}
	var id envelope.UUID
	if err := id.UnmarshalText([]byte(*t.LiveUpgrade)); err != nil {
		return "", nil, err
	}
	v, _, err := a.bundle(ctx, s, id)
	if err != nil {
		return "", nil, fmt.Errorf("what is live at %s: %w", target, err)
	}
	if v.Manifest.Target.Name != target || upgrade.RevisionOf(v.Manifest.PatchHash) != revision {
		return "", nil, failure.New(failure.BundleMismatch, "the gateway says that %s is live at %s, but the bundle of %s is about %s at %s", revision, target, id, v.Manifest.PatchHash, v.Manifest.Target.Name)
	}
	return revision, v, nil
}

// proposeManifest shows, asks, signs, sends the artifact (where there is one to
// send) and submits.
func (a *app) proposeManifest(ctx context.Context, s *session, m *upgrade.Manifest, uri, artifact string) error {
	a.sayProposal(m)
	a.sayPreview(ctx, s, m)
	if err := a.confirm(ctx, "Propose exactly this?"); err != nil {
		return err
	}
	if artifact != "" {
		if err := a.sendArtifact(ctx, s.Client, artifact, m.PatchHash); err != nil {
			return err
		}
	}
	env, err := a.signManifest(ctx, s, m, uri)
	if err != nil {
		return err
	}
	a.say("Words: %s", fingerprint(env.PayloadDigest(), m.PatchHash))
	return a.submit(ctx, s.Client, env)
}

// sayPreview says what the policy would decide, before anything is signed. It
// is advice: the gateway asks again on submission, and the guard after it.
func (a *app) sayPreview(ctx context.Context, s *session, m *upgrade.Manifest) {
	draft := *m
	draft.KeyID, draft.Timestamp = envelope.KeyID(strings.Repeat("0", 64)), a.time() // the signature brings the real ones
	p, err := s.PreviewPolicy(ctx, draft)
	switch {
	case err != nil:
		a.say("  %-10s could not be asked yet: %s", "Policy", foreign(err.Error()))
	case p.Allow:
		a.say("  %-10s would allow it", "Policy")
	default:
		a.say("  %-10s would deny it; it may be proposed all the same, but nobody could approve it as it is", "Policy")
	}
	for _, v := range p.Violations {
		a.say("  %-10s %s: %s", "", foreign(v.Rule), foreign(v.Message))
	}
}

func (a *app) sendArtifact(ctx context.Context, gateway *client.Client, path string, want envelope.Digest) error {
	sent, err := a.push(ctx, gateway, path)
	if err == nil && sent != want {
		err = failure.New(failure.ArtifactMismatch, "%s was %s, and became %s while it was sent", path, want, sent)
	}
	return err
}

func (a *app) signManifest(ctx context.Context, s *session, m *upgrade.Manifest, uri string) (envelope.Envelope, error) {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	var key signer.Signer
	key, err := a.openKey(ctx, uri)
	if err != nil {
		return envelope.Envelope{}, err
	}
	defer key.Close()
	m.KeyID, m.Timestamp = envelope.KeyID(key.Public().KeyID()), a.time()
	if m.ProposedBy, err = a.signatory(s, m.KeyID, keyregistry.KindApprover, keyregistry.KindRequestor); err != nil {
		return envelope.Envelope{}, err
	}
	env, err := envelope.Seal(ctx, key, envelope.TypeManifest, m)
	if err != nil {
		return envelope.Envelope{}, err
	}
	_, err = upgrade.VerifyManifest(s.registry(), env, a.time())
	return env, err
}

func (a *app) createFromFile(ctx context.Context, manifest, artifact string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	c, err := readChange(manifest, artifact)
	if err != nil {
		return err
	}
	if _, err := upgrade.VerifyManifest(s.registry(), c.envelope, a.time()); err != nil {
		return fmt.Errorf("manifest %s: %w", manifest, err)
	}
	live, _, err := a.live(ctx, s, c.manifest.Target.Name)
	if err != nil {
		return err
	}
	if live != c.manifest.BaseRevision {
		return failure.New(failure.BaseRevisionMoved, "%s is live at %s, not %s; sign a manifest on that", live, c.manifest.Target.Name, c.manifest.BaseRevision)
	}
	if err := a.sendArtifact(ctx, s.Client, artifact, c.patch); err != nil {
		return err
	}
	return a.submit(ctx, s.Client, c.envelope)
}

func (a *app) sayProposal(m *upgrade.Manifest) {
	a.say("New upgrade %s", m.UpgradeID)
	for _, line := range [][2]string{
		{"Proposal", fmt.Sprintf("%s at %s", m.Type, m.Target.Name)}, {"Why", indented(m.Rationale)}, {"Target", targetText(m)},
		{"Change", fmt.Sprintf("from %s\n             to %s", m.BaseRevision, m.PatchHash)}, {"Takes back", rollbackText(m)},
		{"Touches", touchesText(m)}, {"Needs", needsText(m)},
	} {
		if line[1] != "" {
			a.say("  %-10s %s", line[0], line[1])
		}
	}
}
