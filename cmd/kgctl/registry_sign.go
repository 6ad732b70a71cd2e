package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

func (a *app) registrySign() *cobra.Command {
	var key, previous, digest string
	cmd := &cobra.Command{
		Use:   "sign --key URI [--digest DIGEST] [--previous FILE] registry.json",
		Short: "Add your signature to a registry file",
		Long: `Add your signature to a registry file. The digest is computed again from the document's
bytes and, with --digest, must be the one that you were told by another channel. What changes is shown first.`,
		Example: `  kgctl registry sign --key "$URI" --digest sha256:... registry.json`,
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "key"); err != nil {
				return err
			}
			return a.signRegistry(cmd.Context(), key, previous, digest, args[0])
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "URI of your key")
	cmd.Flags().StringVar(&previous, "previous", "", "registry file that this one follows (from version 2 on)")
	cmd.Flags().StringVar(&digest, "digest", "", "digest that you were told by another channel")
	return cmd
}

func (a *app) signRegistry(ctx context.Context, key, previous, told, path string) error {
	if _, err := envelope.ParseDigest(told); told != "" && err != nil {
		return usagef("--digest: %w", err)
	}
	f, err := readRegistry(path)
	if err != nil {
		return err
	}
	if told != "" && told != f.digest.String() {
		return bindingf("the document's digest is %s, not the one that you were told", f.digest)
	}
	if err := a.sayChanges(f, previous); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	s, err := a.openKey(ctx, key)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, sig := range f.Statement.Signatures {
		if string(sig.KeyID) == s.Public().KeyID() {
			return fmt.Errorf("key %s has signed this registry already", sig.KeyID)
		}
	}
	sig, err := envelope.Sign(ctx, s, f.Statement)
	if err != nil {
		return err
	}
	f.Statement.Signatures = append(f.Statement.Signatures, sig)
	out, err := f.bytes()
	if err != nil {
		return err
	}
	if err := replaceFile(path, out); err != nil {
		return err
	}
	return a.show(map[string]any{"keyId": sig.KeyID, "signatures": len(f.Statement.Signatures)},
		[][]string{{"signed by", string(sig.KeyID)}, {"signatures", fmt.Sprint(len(f.Statement.Signatures))}})
}

// replaceFile leaves either the old content or the new one.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// sayChanges says in plain words what the document changes.
func (a *app) sayChanges(f *registryFile, previous string) error {
	a.say("Registry version %d of Kernel %s, digest %s", f.doc.Version, f.doc.KernelID, f.digest)
	before := map[envelope.KeyID]holding{}
	var rules *keyregistry.Rules
	if f.doc.Version > 1 {
		if previous == "" {
			return usagef("version %d changes an older one: name it by --previous, to see what changes", f.doc.Version)
		}
		prev, err := readRegistry(previous)
		if err != nil {
			return err
		}
		if err := prev.checkSignatures(previous); err != nil {
			return err
		}
		if *f.doc.Previous != prev.digest {
			return bindingf("%s is not the registry that this one follows", previous)
		}
		rules = &prev.doc.Rules
		for _, h := range holdings(prev.doc) {
			before[h.Key.KeyID] = h
		}
	}
	a.sayKeys(f.doc, before)
	a.sayRules(f.doc, rules)
	return nil
}

func (a *app) sayKeys(doc *keyregistry.Document, before map[envelope.KeyID]holding) {
	for _, h := range holdings(doc) {
		old, kept := before[h.Key.KeyID]
		delete(before, h.Key.KeyID)
		switch {
		case !kept:
			a.say("+ %s %s (%s) gets key %s in %s, from %s to %s", title(h), h.ID, h.Name, h.Key.KeyID, h.Key.Origin, h.Key.NotBefore, h.Key.NotAfter)
		case title(old) != title(h) || old.Name != h.Name || old.ID != h.ID:
			a.say("~ %s %s (%s) becomes %s %s (%s)", title(old), old.ID, old.Name, title(h), h.ID, h.Name)
		case old.Key.NotBefore != h.Key.NotBefore || old.Key.NotAfter != h.Key.NotAfter:
			a.say("~ key %s of %s is valid from %s to %s", h.Key.KeyID, h.ID, h.Key.NotBefore, h.Key.NotAfter)
		}
	}
	for _, h := range before {
		a.say("- %s %s loses key %s for ever", title(h), h.ID, h.Key.KeyID)
	}
}

func (a *app) sayRules(doc *keyregistry.Document, before *keyregistry.Rules) {
	r := doc.Rules
	policy := "none"
	if r.PolicyDigest != nil {
		policy = r.PolicyDigest.String()
	}
	word := "Rules"
	if before != nil {
		word = "Rules from now on"
	}
	a.say("%s: approvals count %d s, ratification within %d s, separation of duties %t, non-browser approvals %d, policy %s",
		word, r.ApprovalTTLSeconds, r.RatificationWindowSeconds, r.SeparationOfDuties, r.MinNonBrowserApprovals, policy)
	if doc.Test {
		a.say("This is a TEST registry: keys in files count.")
	}
}

func title(h holding) string {
	if h.Role != "" {
		return string(h.Role)
	}
	return string(h.Kind)
}
