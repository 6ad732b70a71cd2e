package main

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

func bindingf(format string, args ...any) error {
	return failure.New(failure.BindingMismatch, format, args...)
}

// shownKey is one line of registry show.
type shownKey struct {
	holding
	Signature string `json:"signature"` // valid, missing, INVALID, SUSPENDED, or - where none is asked
	// VerifierKey is a kernel-audit key as the log's witnesses are given it.
	VerifierKey string `json:"verifierKey,omitzero"`
}

func (a *app) registryShow() *cobra.Command {
	var chain []string
	cmd := &cobra.Command{
		Use:   "show [FILE [--root DIGEST [--previous FILE...]]]",
		Short: "Show who is in the registry and who has signed it",
		Long: `Show who is in the registry and who has signed it: the one in force at the gateway, verified from the pinned
root, or one in a FILE. With --root a file is verified by the protocol's rules, after the versions before it
(--previous, in order).`,
		Example: `  kgctl registry show
  kgctl registry show --root sha256:... registry.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneFile(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.showLiveRegistry(cmd.Context())
			}
			f, err := readRegistry(args[0])
			if err != nil {
				return err
			}
			root := ""
			if cmd.Flags().Changed("root") { // a document that is not signed yet can be looked at too
				root = a.connection.root
			}
			if err := a.showRegistry(f, nil); err != nil || root == "" {
				return err
			}
			if err := acceptChain(root, chain, f); err != nil {
				return err
			}
			a.say("Accepted: version %d follows from the root.", f.doc.Version)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&chain, "previous", nil, "registry file of an older version; repeated, oldest first")
	return cmd
}

func (a *app) showLiveRegistry(ctx context.Context) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	entries, err := s.Registry(ctx)
	if err != nil {
		return err
	}
	if len(entries) != len(s.regs) {
		return fmt.Errorf("%w: a new registry came into force just now; ask again", errChanged)
	}
	f := &registryFile{SignedDocument: entries[len(entries)-1], doc: s.registry().Document(), digest: s.registry().Digest()}
	if envelope.DigestOf(f.Document) != f.digest {
		return fmt.Errorf("%w: a new registry came into force just now; ask again", errChanged)
	}
	return a.showRegistry(f, s.suspended)
}

func acceptChain(root string, files []string, last *registryFile) error {
	pinned, err := envelope.ParseDigest(root)
	if err != nil {
		return usagef("--root: %w", err)
	}
	var reg *keyregistry.Registry
	for _, path := range files {
		f, err := readRegistry(path)
		if err != nil {
			return err
		}
		if reg, err = keyregistry.Accept(reg, pinned, f.SignedDocument); err != nil {
			return fmt.Errorf("registry %s: %w", path, err)
		}
	}
	_, err = keyregistry.Accept(reg, pinned, last.SignedDocument)
	return err
}

func (a *app) showRegistry(f *registryFile, suspended map[envelope.KeyID]bool) error {
	signatures := map[envelope.KeyID]envelope.Signature{}
	for _, s := range f.Statement.Signatures {
		signatures[s.KeyID] = s
	}
	a.say("Kernel %s, version %d, digest %s", f.doc.KernelID, f.doc.Version, f.digest)
	keys := []shownKey{}
	rows := [][]string{{"HOLDER", "NAME", "ROLE", "KEY", "NOT AFTER", "SIGNATURE"}}
	for _, h := range holdings(f.doc) {
		k := shownKey{holding: h, Signature: "-"}
		if h.Kind == keyregistry.KindApprover {
			k.Signature = "missing"
			if s, ok := signatures[h.Key.KeyID]; ok {
				k.Signature = "valid"
				if h.Key.Verify(f.Statement, s) != nil {
					k.Signature = "INVALID"
				}
			}
		}
		if key, ok := h.Key.Public().Key().(ed25519.PublicKey); ok && h.Kind == keyregistry.KindKernelAudit {
			k.VerifierKey = auditlog.VerifierKey(f.doc.KernelID, key)
			a.say("The log's key, for witnesses: %s", k.VerifierKey)
		}
		if suspended[h.Key.KeyID] {
			k.Signature = "SUSPENDED"
		}
		keys = append(keys, k)
		rows = append(rows, []string{string(h.ID), h.Name, title(h), string(h.Key.KeyID), h.Key.NotAfter.String(), k.Signature})
	}
	return a.show(map[string]any{"digest": f.digest, "version": f.doc.Version, "kernelId": f.doc.KernelID, "keys": keys}, rows)
}
