package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

func (a *app) registryPublish() *cobra.Command {
	return &cobra.Command{
		Use: "publish FILE", Short: "Put the next registry into force", Args: oneFile,
		Long: `Put the next registry into force at the gateway. It is verified here first, as the Kernel will. From then on
pending approvals count no more: their approvers sign again.`,
		Example: "  kgctl registry publish registry-2.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readRegistry(args[0])
			if err != nil {
				return err
			}
			return a.publish(cmd.Context(), f)
		},
	}
}

func (a *app) publish(ctx context.Context, f *registryFile) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	before := s.registry()
	if before.Digest() != f.digest {
		suspended := func(id envelope.KeyID) bool { return s.suspended[id] }
		if _, err := keyregistry.AcceptLive(before, s.root, f.SignedDocument, suspended, a.time()); err != nil {
			return err
		}
		a.sayChanges(f, before.Document())
		if err := a.confirm(ctx, "Put this registry into force?"); err != nil {
			return err
		}
	}
	if err := s.PublishRegistry(ctx, f.SignedDocument); err != nil {
		return err
	}
	after, err := a.open(ctx) // remembers the new one
	if err != nil {
		return err
	}
	if after.registry().Digest() != f.digest {
		return fmt.Errorf("%w: version %d is in force, not this one", errChanged, after.registry().Version())
	}
	return a.show(map[string]any{"version": f.doc.Version, "digest": f.digest}, [][]string{{"version", fmt.Sprint(f.doc.Version)}, {"digest", f.digest.String()}})
}

func (a *app) registrySuspend() *cobra.Command {
	var key, reason string
	cmd := &cobra.Command{
		Use: "suspend KEYID --reason TEXT --key URI", Short: "Take a key out of use at once",
		Long: `Take a key out of use at once: one of your own, or, as superadmin or security engineer, anybody's. It counts
nowhere until a new registry is in force.`,
		Example: `  kgctl registry suspend KEYID --reason "The card is lost" --key "$URI"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !envelope.IsLowerHex(args[0], 64) {
				return usagef("%s takes one KEYID; kgctl registry show lists them", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "reason", "key"); err != nil {
				return err
			}
			if err := envelope.CheckText("reason", reason, 1000); err != nil {
				return usageError{err}
			}
			return a.suspend(cmd.Context(), envelope.KeyID(args[0]), reason, key)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for everyone to read")
	cmd.Flags().StringVar(&key, "key", "", "URI of your key")
	return cmd
}

func (a *app) suspend(ctx context.Context, target envelope.KeyID, reason, uri string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	entry, err := s.registry().Lookup(target)
	if err != nil {
		return err
	}
	a.say("Suspends key %s of %s (%s, %s)\n  Why        %s", target, entry.ID, foreign(entry.Name), entry.Kind, indented(reason))
	if err := a.confirm(ctx, "Suspend this key?"); err != nil {
		return err
	}
	signing, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	key, err := a.openKey(signing, uri)
	if err != nil {
		return err
	}
	defer key.Close()
	id := envelope.KeyID(key.Public().KeyID())
	who, err := a.signatory(s, id, keyregistry.KindApprover, keyregistry.KindRequestor, keyregistry.KindCI)
	if err != nil {
		return err
	}
	reg := s.registry()
	env, err := envelope.Seal(signing, key, envelope.TypeKeySuspension, keyregistry.Suspension{IssuedBy: who, KernelID: reg.KernelID(), KeyID: id,
		Reason: reason, RegistryDigest: reg.Digest(), SuspendedAt: a.time(), SuspendedKeyID: target})
	if err != nil {
		return err
	}
	if _, err := reg.AcceptSuspension(env, func(id envelope.KeyID) bool { return s.suspended[id] }, a.time()); err != nil {
		return err
	}
	return a.submit(ctx, s.Client, env)
}
