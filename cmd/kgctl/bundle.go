package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func (a *app) bundleCommand() *cobra.Command {
	cmd := group("bundle", "Fetch the proof of an upgrade", "A bundle file is all that kgverify needs, offline and years later.")
	cmd.AddCommand(a.bundleGet())
	return cmd
}

func (a *app) bundleGet() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "get ID [-f FILE]", Short: "Fetch a bundle file, verified here before it is kept", Args: oneUpgrade,
		Example: "  kgctl bundle get 0190a5e0-0000-7000-8000-000000000001 -f upgrade.bundle.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			v, data, err := a.bundle(cmd.Context(), s, envelope.UUID(args[0]))
			if err != nil {
				return err
			}
			a.say("Verified from root %s: %s at %s, %s, approved by %v, decided on %s.", s.root, v.Manifest.Type, v.Manifest.Target.Name, v.Case, v.Approvers, local(v.DecidedAt))
			if file == "" {
				_, err := a.out.Write(data)
				return err
			}
			if err := writeNew(file, data); err != nil {
				return err
			}
			return a.show(map[string]any{"file": file, "bundleDigest": v.BundleDigest, "manifestDigest": v.ManifestDigest, "approvers": v.Approvers},
				[][]string{{"file", file}, {"bundle", v.BundleDigest.String()}, {"manifest", v.ManifestDigest.String()}})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to write (default: standard output)")
	return cmd
}

// bundle fetches and verifies an upgrade's bundle file.
func (a *app) bundle(ctx context.Context, s *session, id envelope.UUID) (*upgrade.FileVerdict, []byte, error) {
	data, err := s.Bundle(ctx, id)
	if err != nil {
		return nil, nil, unknownUpgrade(id, err)
	}
	v, err := upgrade.VerifyFile(data, s.root, true)
	if err != nil {
		return nil, nil, fmt.Errorf("the bundle of %s: %w", id, err)
	}
	if v.Manifest.UpgradeID != id {
		return nil, nil, failure.New(failure.BundleMismatch, "the gateway sent the bundle of %s for %s", v.Manifest.UpgradeID, id)
	}
	return v, data, nil
}
