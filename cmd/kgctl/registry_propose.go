package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

type proposeFlags struct {
	kernelID, previous, file, policy string
	enrolments, removed              []string
	test, separation                 bool
	ttl, ratification                time.Duration
	nonBrowser                       int64
}

func (a *app) registryPropose() *cobra.Command {
	var f proposeFlags
	cmd := &cobra.Command{
		Use:   "propose --kernel-id ID --enrolment FILE... -f registry.json",
		Short: "Make the next registry document from enrolment files",
		Long: `Make the next registry document: version 1, or with --previous the version after it.
What --previous has is kept, but for keys that --remove-key names, which are retired for ever.`,
		Example: `  kgctl registry propose --kernel-id prod --enrolment ryan.json --enrolment ana.json ... -f registry.json
  kgctl registry propose --previous registry.json --enrolment ryan-2.json --remove-key KEYID -f registry-2.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "file"); err != nil {
				return err
			}
			return a.propose(cmd, f)
		},
	}
	s, d := cmd.Flags(), keyregistry.DefaultRules()
	s.StringVar(&f.kernelID, "kernel-id", "", "ID of the Kernel (version 1)")
	s.StringVar(&f.previous, "previous", "", "registry file that the new one follows")
	s.StringArrayVar(&f.enrolments, "enrolment", nil, "enrolment file; may be repeated")
	s.StringArrayVar(&f.removed, "remove-key", nil, "keyId to retire; may be repeated")
	s.BoolVar(&f.test, "test", false, "a registry for development: keys in files are allowed")
	s.DurationVar(&f.ttl, "approval-ttl", time.Duration(d.ApprovalTTLSeconds)*time.Second, "how long an approval counts")
	s.DurationVar(&f.ratification, "ratification-window", time.Duration(d.RatificationWindowSeconds)*time.Second, "how soon an emergency is ratified")
	s.BoolVar(&f.separation, "separation-of-duties", false, "a proposer's approval does not count")
	s.Int64Var(&f.nonBrowser, "min-non-browser", 0, "approvals of a quorum that are not made in a browser")
	s.StringVar(&f.policy, "policy-digest", "", "digest of the policy that the quorum chose")
	s.StringVarP(&f.file, "file", "f", "", "registry file to write")
	return cmd
}

func (a *app) propose(cmd *cobra.Command, f proposeFlags) error {
	doc, before, err := f.start()
	if err != nil {
		return err
	}
	if err := f.setRules(cmd, &doc.Rules); err != nil {
		return err
	}
	doc.Test = doc.Test || f.test
	doc.IssuedAt = a.time()
	for _, id := range f.removed {
		if !removeKey(doc, envelope.KeyID(id)) {
			return usagef("--remove-key %.70q: the previous registry has no such key", id)
		}
	}
	for _, path := range f.enrolments {
		e, err := readEnrolment(path)
		if err != nil {
			return err
		}
		add(doc, e)
	}
	tidy(doc)
	retire(doc, before)
	return a.writeProposal(doc, f.file)
}

// start is the document to change, and the keys that it had.
func (f proposeFlags) start() (*keyregistry.Document, []holding, error) {
	if f.previous == "" {
		doc := &keyregistry.Document{Version: 1, Rules: keyregistry.DefaultRules()}
		if err := doc.KernelID.UnmarshalText([]byte(f.kernelID)); err != nil {
			return nil, nil, usagef("--kernel-id: %w", err)
		}
		return doc, nil, nil
	}
	prev, err := readRegistry(f.previous)
	if err != nil {
		return nil, nil, err
	}
	if err := prev.checkSignatures(f.previous); err != nil {
		return nil, nil, err
	}
	if f.kernelID != "" && envelope.ID(f.kernelID) != prev.doc.KernelID {
		return nil, nil, usagef("--previous is the registry of Kernel %s", prev.doc.KernelID)
	}
	doc, err := keyregistry.ParseDocument(prev.Document) // a copy
	if err != nil {
		return nil, nil, err
	}
	doc.Version++
	doc.Previous = &prev.digest
	return doc, holdings(prev.doc), nil
}

// setRules changes the rules whose flags were given.
func (f proposeFlags) setRules(cmd *cobra.Command, r *keyregistry.Rules) error {
	given := cmd.Flags().Changed
	if given("approval-ttl") {
		r.ApprovalTTLSeconds = int64(f.ttl / time.Second)
	}
	if given("ratification-window") {
		r.RatificationWindowSeconds = int64(f.ratification / time.Second)
	}
	if given("separation-of-duties") {
		r.SeparationOfDuties = f.separation
	}
	if given("min-non-browser") {
		r.MinNonBrowserApprovals = f.nonBrowser
	}
	if given("policy-digest") {
		d, err := envelope.ParseDigest(f.policy)
		if err != nil {
			return usagef("--policy-digest: %w", err)
		}
		r.PolicyDigest = &d
	}
	return nil
}

// retire lists every key that was and is no more under its last holder.
func retire(doc *keyregistry.Document, before []holding) {
	kept := map[envelope.KeyID]bool{}
	for _, h := range holdings(doc) {
		kept[h.Key.KeyID] = true
	}
	for _, h := range before {
		if !kept[h.Key.KeyID] {
			doc.Retired = append(doc.Retired, keyregistry.RetiredKey{Holder: h.ID, KeyID: h.Key.KeyID})
		}
	}
	slices.SortFunc(doc.Retired, func(x, y keyregistry.RetiredKey) int { return cmp.Compare(x.KeyID, y.KeyID) })
}

func (a *app) writeProposal(doc *keyregistry.Document, path string) error {
	data, err := envelope.Canonical(doc)
	if err != nil {
		return err
	}
	if _, err := keyregistry.ParseDocument(data); err != nil {
		return err
	}
	payload, err := envelope.Canonical(keyregistry.NewStatement(doc, data))
	if err != nil {
		return err
	}
	f := registryFile{SignedDocument: keyregistry.SignedDocument{Document: data,
		Statement: envelope.Envelope{Payload: payload, PayloadType: envelope.TypeRegistryStatement}}}
	out, err := f.bytes()
	if err != nil {
		return err
	}
	if err := writeNew(path, out); err != nil {
		return err
	}
	digest := envelope.DigestOf(data).String()
	a.say("Wrote %s: version %d of Kernel %s. Compare the digest with every signer by another channel.", path, doc.Version, doc.KernelID)
	return a.show(map[string]string{"digest": digest}, [][]string{{digest}})
}
