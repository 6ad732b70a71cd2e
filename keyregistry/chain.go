package keyregistry

import (
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Chain is an accepted chain of registry documents, in order of version. It is
// never empty.
type Chain []*Registry

// AcceptChain accepts a chain of registry entries that begins with the pinned root.
func AcceptChain(root envelope.Digest, entries []SignedDocument) (Chain, error) {
	var chain Chain
	var last *Registry
	for _, e := range entries {
		next, err := Accept(last, root, e)
		if err != nil {
			return nil, err
		}
		chain, last = append(chain, next), next
	}
	if last == nil {
		return nil, failure.New(failure.RegistryRootMismatch, "there is no registry document")
	}
	return chain, nil
}

// Find is the document with this digest. The failure class is registry_chain_broken.
func (c Chain) Find(digest envelope.Digest) (*Registry, error) {
	for _, reg := range c {
		if reg.digest == digest {
			return reg, nil
		}
	}
	return nil, failure.New(failure.RegistryChainBroken, "registry document %s is not in the chain", digest)
}

// Last is the newest document.
func (c Chain) Last() *Registry { return c[len(c)-1] }
