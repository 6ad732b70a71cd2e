package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// maxRegistryFile holds a document in base64 and a statement with 64 signatures.
const maxRegistryFile = 4 << 20

func (a *app) registryCommand() *cobra.Command {
	cmd := group("registry", "Propose, sign, show and publish the key registry", `A registry file holds the document and the statement that approvers sign.
It goes from approver to approver; each adds one signature.`)
	cmd.AddCommand(a.registryPropose(), a.registrySign(), a.registryShow(), a.registryPublish(), a.registrySuspend())
	return cmd
}

// registryFile is a registry entry in a file, its document parsed.
type registryFile struct {
	keyregistry.SignedDocument
	doc    *keyregistry.Document
	digest envelope.Digest // computed from the document's bytes
}

// readRegistry parses a file and checks that its statement speaks of its
// document. It verifies no signature.
func readRegistry(path string) (*registryFile, error) {
	data, err := readFile(path, maxRegistryFile)
	if err != nil {
		return nil, err
	}
	f := new(registryFile)
	if err := envelope.DecodeCanonical(data, maxRegistryFile, &f.SignedDocument); err != nil {
		return nil, fmt.Errorf("registry %s: %w", path, err)
	}
	if f.doc, err = keyregistry.ParseDocument(f.Document); err != nil {
		return nil, fmt.Errorf("registry %s: %w", path, err)
	}
	f.digest = envelope.DigestOf(f.Document)
	return f, f.checkStatement(path)
}

func (f *registryFile) checkStatement(path string) error {
	want, err := envelope.Canonical(keyregistry.NewStatement(f.doc, f.Document))
	if err != nil {
		return err
	}
	if err := f.Statement.Expect(envelope.TypeRegistryStatement); err != nil {
		return fmt.Errorf("registry %s: %w", path, err)
	}
	if string(want) != string(f.Statement.Payload) {
		return fmt.Errorf("registry %s: %w", path, failure.New(failure.BindingMismatch, "the statement does not speak of the document beside it"))
	}
	return nil
}

// checkSignatures refuses a registry, to be built upon, that is not signed as
// far as it can tell by itself: each signature verifies, at least 3 of its
// approvers have signed, and of version 1 every approver's key. That it follows
// from the root, whoever accepts the next version checks.
func (f *registryFile) checkSignatures(path string) error {
	keys := map[envelope.KeyID]holding{}
	for _, h := range holdings(f.doc) {
		keys[h.Key.KeyID] = h
	}
	persons := map[envelope.ID]bool{}
	signed := map[envelope.KeyID]bool{}
	for _, sig := range f.Statement.Signatures {
		h, known := keys[sig.KeyID]
		if !known || h.Kind != keyregistry.KindApprover {
			if f.doc.Version == 1 {
				return fmt.Errorf("registry %s: %w", path, failure.New(failure.RegistryThresholdNotMet, "key %s signed, but is no approver's", sig.KeyID))
			}
			continue // of an approver of the version before, perhaps
		}
		if err := h.Key.Verify(f.Statement, sig); err != nil {
			return fmt.Errorf("registry %s: the signature of %s: %w", path, h.ID, err)
		}
		persons[h.ID], signed[sig.KeyID] = true, true
	}
	if len(persons) < keyregistry.Quorum {
		return fmt.Errorf("registry %s: %w", path, failure.New(failure.RegistryThresholdNotMet, "%d of its approvers have signed it, where 3 must", len(persons)))
	}
	for id, h := range keys {
		if f.doc.Version == 1 && h.Kind == keyregistry.KindApprover && !signed[id] {
			return fmt.Errorf("registry %s: %w", path, failure.New(failure.RegistryThresholdNotMet, "key %s of %s has not signed it", id, h.ID))
		}
	}
	return nil
}

func (f *registryFile) bytes() ([]byte, error) { return envelope.Canonical(f.SignedDocument) }

// holding is one key with its holder, of any kind.
type holding struct {
	ID   envelope.ID      `json:"id"`
	Name string           `json:"name,omitzero"`
	Kind keyregistry.Kind `json:"kind"`
	Role keyregistry.Role `json:"role,omitzero"`
	Key  *keyregistry.Key `json:"key"`
}

func holdings(d *keyregistry.Document) []holding {
	var all []holding
	for i := range d.Approvers {
		p := &d.Approvers[i]
		for j := range p.Keys {
			all = append(all, holding{p.ID, p.Name, keyregistry.KindApprover, p.Role, &p.Keys[j]})
		}
	}
	all = append(all, people(keyregistry.KindRequestor, d.Requestors)...)
	all = append(all, people(keyregistry.KindCI, d.CI)...)
	for i := range d.Kernel.Records {
		all = append(all, holding{keyregistry.KernelHolder, "", keyregistry.KindKernelRecords, "", &d.Kernel.Records[i]})
	}
	for i := range d.Kernel.Audit {
		all = append(all, holding{keyregistry.KernelHolder, "", keyregistry.KindKernelAudit, "", &d.Kernel.Audit[i]})
	}
	return all
}

func people(kind keyregistry.Kind, list []keyregistry.Person) []holding {
	var all []holding
	for i := range list {
		for j := range list[i].Keys {
			all = append(all, holding{list[i].ID, list[i].Name, kind, "", &list[i].Keys[j]})
		}
	}
	return all
}
