package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

func bindingf(format string, args ...any) error {
	return failure.New(failure.BindingMismatch, format, args...)
}

// shownKey is one line of registry show.
type shownKey struct {
	holding
	Signature string `json:"signature"` // valid, missing, INVALID, or - where none is asked
}

func (a *app) registryShow() *cobra.Command {
	var root string
	var chain []string
	cmd := &cobra.Command{
		Use:   "show [--root DIGEST [--previous FILE...]] FILE",
		Short: "Show who is in a registry file and who has signed it",
		Long: `Show who is in a registry file and who has signed it. With --root, the pinned digest of
version 1, the file is verified by the protocol's rules, after the versions before it (--previous, in order).`,
		Example: `  kgctl registry show --root sha256:... registry.json`,
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readRegistry(args[0])
			if err != nil {
				return err
			}
			if err := a.showRegistry(f); err != nil || root == "" {
				return err
			}
			if err := acceptChain(root, chain, f); err != nil {
				return err
			}
			a.say("Accepted: version %d follows from the root.", f.doc.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "pinned digest of version 1")
	cmd.Flags().StringArrayVar(&chain, "previous", nil, "registry file of an older version; repeated, oldest first")
	return cmd
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

func (a *app) showRegistry(f *registryFile) error {
	signatures := map[envelope.KeyID]envelope.Signature{}
	for _, s := range f.Statement.Signatures {
		signatures[s.KeyID] = s
	}
	keys := []shownKey{}
	rows := [][]string{{"HOLDER", "NAME", "ROLE", "KEY", "NOT AFTER", "SIGNATURE"}}
	for _, h := range holdings(f.doc) {
		k := shownKey{h, "-"}
		if h.Kind == keyregistry.KindApprover {
			k.Signature = "missing"
			if s, ok := signatures[h.Key.KeyID]; ok {
				k.Signature = "valid"
				if h.Key.Verify(f.Statement, s) != nil {
					k.Signature = "INVALID"
				}
			}
		}
		keys = append(keys, k)
		rows = append(rows, []string{string(h.ID), h.Name, title(h), string(h.Key.KeyID), h.Key.NotAfter.String(), k.Signature})
	}
	a.say("Kernel %s, version %d, digest %s", f.doc.KernelID, f.doc.Version, f.digest)
	return a.show(map[string]any{"digest": f.digest, "version": f.doc.Version, "kernelId": f.doc.KernelID, "keys": keys}, rows)
}
