package keyregistry

import (
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Statement is what approvers sign of a document.
type Statement struct {
	IssuedAt       envelope.Time    `json:"issuedAt"`
	KernelID       envelope.ID      `json:"kernelId"`
	Previous       *envelope.Digest `json:"previous,omitzero"`
	RegistryDigest envelope.Digest  `json:"registryDigest"`
	Version        int64            `json:"version"`
}

// SignedDocument is a registry entry in files and bundles: a document's bytes
// and the envelope of its statement.
type SignedDocument struct {
	Document  []byte            `json:"document"`
	Statement envelope.Envelope `json:"statement"`
}

// NewStatement is the statement for a document, given its canonical bytes.
func NewStatement(doc *Document, data []byte) Statement {
	return Statement{IssuedAt: doc.IssuedAt, KernelID: doc.KernelID, Previous: doc.Previous, RegistryDigest: envelope.DigestOf(data), Version: doc.Version}
}

// Accept decides whether entry may follow prev (nil: it must be version 1, with
// root as its digest), by PROTOCOL section 5's rules 1 to 4, as anyone may
// years later. Who accepts it live calls AcceptLive.
func Accept(prev *Registry, root envelope.Digest, entry SignedDocument) (*Registry, error) {
	next, _, err := accept(prev, root, entry)
	return next, err
}

// MaxStatementAge is how long, in seconds, a statement may wait before it is
// accepted live; MaxStatementAhead how far ahead of the clock it may be.
const (
	MaxStatementAge   = 14 * 86400
	MaxStatementAhead = 300
)

// AcceptLive is Accept for who takes a new document into force now: no signer
// is suspended, and the statement is neither old nor ahead of the clock.
func AcceptLive(prev *Registry, root envelope.Digest, entry SignedDocument, suspended func(envelope.KeyID) bool, now envelope.Time) (*Registry, error) {
	next, signers, err := accept(prev, root, entry)
	if err != nil {
		return nil, err
	}
	for _, id := range signers {
		if suspended(id) {
			return nil, failure.New(failure.KeySuspended, "key %s, which signed the statement, is suspended", id)
		}
	}
	if age := now.Sub(next.doc.IssuedAt); age < -MaxStatementAhead || age > MaxStatementAge {
		return nil, failure.New(failure.TimeInvalid, "the statement was issued at %s, which is too far from now, %s", next.doc.IssuedAt, now)
	}
	return next, nil
}

func accept(prev *Registry, root envelope.Digest, entry SignedDocument) (*Registry, []envelope.KeyID, error) {
	doc, err := ParseDocument(entry.Document)
	if err != nil {
		return nil, nil, err
	}
	digest := envelope.DigestOf(entry.Document)
	if err := checkStatement(doc, digest, entry.Statement); err != nil {
		return nil, nil, err
	}
	next := newRegistry(doc, digest)
	if prev == nil {
		if doc.Version != 1 || digest != root {
			return nil, nil, failure.New(failure.RegistryRootMismatch, "registry version %d with digest %s is not the pinned root %s", doc.Version, digest, root)
		}
	} else if err := checkSuccession(prev, next); err != nil {
		return nil, nil, err
	}
	signers, err := checkSignatures(prev, next, entry.Statement)
	return next, signers, err
}

// checkStatement is rule 1: the statement speaks of this very document.
func checkStatement(doc *Document, digest envelope.Digest, env envelope.Envelope) error {
	if err := env.Expect(envelope.TypeRegistryStatement); err != nil {
		return err
	}
	if err := env.Check(); err != nil {
		return err
	}
	var s Statement
	if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &s); err != nil {
		return err
	}
	if s.RegistryDigest != digest {
		return failure.New(failure.BindingMismatch, "the statement names document %s, but this one is %s", s.RegistryDigest, digest)
	}
	if s.KernelID != doc.KernelID || s.Version != doc.Version || s.IssuedAt != doc.IssuedAt || !sameDigest(s.Previous, doc.Previous) {
		return failure.New(failure.BindingMismatch, "statement and document differ in kernelId, version, previous or issuedAt")
	}
	return nil
}

func sameDigest(a, b *envelope.Digest) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// checkSuccession is rule 3's chain and rule 4.
func checkSuccession(prev, next *Registry) error {
	d, p := next.doc, prev.doc
	if d.KernelID != p.KernelID {
		return failure.New(failure.RegistryChainBroken, "the document is of another Kernel, %s", d.KernelID)
	}
	if d.Version != p.Version+1 || d.Previous == nil || *d.Previous != prev.digest {
		return failure.New(failure.RegistryChainBroken, "version %d does not follow version %d with digest %s", d.Version, p.Version, prev.digest)
	}
	if d.IssuedAt.Before(p.IssuedAt) {
		return failure.New(failure.RegistryChainBroken, "version %d was issued before version %d", d.Version, p.Version)
	}
	retired := make(map[envelope.KeyID]envelope.ID, len(d.Retired))
	for _, r := range d.Retired {
		retired[r.KeyID] = r.Holder
	}
	for _, r := range p.Retired {
		if retired[r.KeyID] != r.Holder {
			return failure.New(failure.RegistryKeyReused, "retired key %s is no longer listed under %s", r.KeyID, r.Holder)
		}
	}
	for id, old := range prev.keys {
		now, kept := next.keys[id]
		switch {
		case !kept && retired[id] != old.ID:
			return failure.New(failure.RegistryKeyReused, "key %s left the registry but is not retired under %s", id, old.ID)
		case kept && (now.ID != old.ID || !now.Key.sameEntry(old.Key)):
			return failure.New(failure.RegistryKeyReused, "key %s was kept with another holder or entry", id)
		}
	}
	return nil
}

// checkSignatures is rule 2 and the threshold of rule 3. It returns the keys
// that signed. Persons are counted, not keys.
func checkSignatures(prev, next *Registry, env envelope.Envelope) ([]envelope.KeyID, error) {
	signers := make([]envelope.KeyID, 0, len(env.Signatures))
	signed := make(map[envelope.KeyID]bool)
	for _, sig := range env.Signatures {
		if err := checkSignature(prev, next, env, sig); err != nil {
			return nil, err
		}
		signed[sig.KeyID] = true
		signers = append(signers, sig.KeyID)
	}
	// Proof of possession: every approver key that was none before has signed.
	for i := range next.doc.Approvers {
		for _, k := range next.doc.Approvers[i].Keys {
			if !approverIn(prev, k.KeyID) && !signed[k.KeyID] {
				return nil, failure.New(failure.RegistryThresholdNotMet, "the new key %s of %s has not signed", k.KeyID, next.doc.Approvers[i].ID)
			}
		}
	}
	if prev == nil {
		return signers, nil
	}
	if err := checkThreshold(prev, signed, prev.doc.Rules.MinNonBrowserApprovals); err != nil {
		return nil, err
	}
	return signers, checkThreshold(next, signed, 0)
}

func approverIn(r *Registry, id envelope.KeyID) bool {
	return r != nil && r.keys[id].Kind == KindApprover
}

// checkSignature verifies one signature: by an approver of the last document
// or of the new one, inside the key's validity in each that has it.
func checkSignature(prev, next *Registry, env envelope.Envelope, sig envelope.Signature) error {
	if !approverIn(prev, sig.KeyID) && !approverIn(next, sig.KeyID) {
		return failure.New(failure.RegistryThresholdNotMet, "key %s signed, but is no approver's", sig.KeyID)
	}
	var key *Key
	for _, r := range []*Registry{prev, next} {
		if r == nil {
			continue
		}
		e, ok := r.keys[sig.KeyID]
		if !ok {
			continue
		}
		if err := e.RequireValid(next.doc.IssuedAt); err != nil {
			return err
		}
		key = e.Key
	}
	return key.Verify(env, sig)
}

func checkThreshold(r *Registry, signed map[envelope.KeyID]bool, minNonBrowser int64) error {
	persons, nonBrowser := 0, int64(0)
	for i := range r.doc.Approvers {
		any, outside := false, false
		for _, k := range r.doc.Approvers[i].Keys {
			any = any || signed[k.KeyID]
			outside = outside || signed[k.KeyID] && k.WebAuthn == nil
		}
		if any {
			persons++
		}
		if outside {
			nonBrowser++
		}
	}
	if persons < Quorum {
		return failure.New(failure.RegistryThresholdNotMet, "%d of version %d's approvers signed, where %d must", persons, r.doc.Version, Quorum)
	}
	if nonBrowser < minNonBrowser {
		return failure.New(failure.RegistryThresholdNotMet, "%d of version %d's approvers signed outside a browser, where %d must", nonBrowser, r.doc.Version, minNonBrowser)
	}
	return nil
}
