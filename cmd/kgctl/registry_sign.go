package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

func (a *app) registrySign() *cobra.Command {
	var key, previous, digest string
	cmd := &cobra.Command{
		Use:   "sign --key URI [--digest DIGEST] [--previous FILE] registry.json",
		Short: "Add your signature to a registry file",
		Long: `Add your signature to a registry file. The digest is computed again from the document's bytes, and what changes
is shown first. With --digest, the digest that you were told by another channel, you are not asked: it must be that one.`,
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
	prev, err := f.follows(previous)
	if err != nil {
		return err
	}
	a.sayChanges(f, prev)
	if told == "" {
		if err := a.confirm(ctx, "Sign exactly this registry?"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	s, err := a.openKey(ctx, key)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := f.mayBeSigned(prev, envelope.KeyID(s.Public().KeyID())); err != nil {
		return err
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

// follows is the document that f changes; nil for version 1.
func (f *registryFile) follows(previous string) (*keyregistry.Document, error) {
	if f.doc.Version == 1 {
		return nil, nil
	}
	if previous == "" {
		return nil, usagef("version %d changes an older one: name it by --previous, to see what changes", f.doc.Version)
	}
	prev, err := readRegistry(previous)
	if err != nil {
		return nil, err
	}
	if err := prev.checkSignatures(previous); err != nil {
		return nil, err
	}
	if *f.doc.Previous != prev.digest {
		return nil, bindingf("%s is not the registry that this one follows", previous)
	}
	return prev.doc, nil
}

// mayBeSigned refuses a signature with which nobody would take the file: a
// second one by a key, or one by a key that is no approver's.
func (f *registryFile) mayBeSigned(prev *keyregistry.Document, id envelope.KeyID) error {
	for _, sig := range f.Statement.Signatures {
		if sig.KeyID == id {
			return fmt.Errorf("key %s has signed this registry already", id)
		}
	}
	if hasApprover(f.doc, id) || prev != nil && hasApprover(prev, id) {
		return nil
	}
	return failure.New(failure.RoleNotAllowed, "key %s is no approver's: nobody would take a registry that it signed", id)
}

func hasApprover(doc *keyregistry.Document, id envelope.KeyID) bool {
	return slices.ContainsFunc(holdings(doc), func(h holding) bool { return h.Kind == keyregistry.KindApprover && h.Key.KeyID == id })
}

// sayChanges says in plain words what f changes of prev, or all that it says
// where there is none.
func (a *app) sayChanges(f *registryFile, prev *keyregistry.Document) {
	a.say("Registry version %d of Kernel %s, digest %s", f.doc.Version, f.doc.KernelID, f.digest)
	before := map[envelope.KeyID]holding{}
	var rules *keyregistry.Rules
	if prev != nil {
		rules = &prev.Rules
		for _, h := range holdings(prev) {
			before[h.Key.KeyID] = h
		}
	}
	a.sayKeys(f.doc, before)
	a.sayRules(f.doc, rules)
}

func (a *app) sayKeys(doc *keyregistry.Document, before map[envelope.KeyID]holding) {
	for _, h := range holdings(doc) {
		old, kept := before[h.Key.KeyID]
		delete(before, h.Key.KeyID)
		switch {
		case !kept:
			a.say("+ %s %s gets key %s in %s, from %s to %s", title(h), h.named(), h.Key.KeyID, h.Key.Origin, h.Key.NotBefore, h.Key.NotAfter)
		case title(old) != title(h) || old.Name != h.Name || old.ID != h.ID:
			a.say("~ %s %s becomes %s %s", title(old), old.named(), title(h), h.named())
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

// named is the ID and, of people, the name.
func (h holding) named() string {
	if h.Name == "" {
		return string(h.ID)
	}
	return fmt.Sprintf("%s (%s)", h.ID, h.Name)
}

func title(h holding) string {
	if h.Role != "" {
		return string(h.Role)
	}
	return string(h.Kind)
}
