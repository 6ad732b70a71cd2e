package keyregistry

import (
	"iter"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Kind is what somebody's keys are good for.
type Kind string

// The kinds of holders. One key has one kind in one document.
const (
	KindApprover      Kind = "approver"
	KindRequestor     Kind = "requestor"
	KindCI            Kind = "ci"
	KindKernelRecords Kind = "kernel-records"
	KindKernelAudit   Kind = "kernel-audit"
)

// Holder is who holds a key in a document.
type Holder struct {
	ID   envelope.ID // KernelHolder for the Kernel's keys
	Kind Kind
	Role Role   // approvers only
	Name string // empty for the Kernel
	keys []Key
}

// Entry is one key with its holder, as one document has it.
type Entry struct {
	Holder
	Key *Key
}

func (d *Document) holders() iter.Seq[Holder] {
	return func(yield func(Holder) bool) {
		for i := range d.Approvers {
			a := &d.Approvers[i]
			if !yield(Holder{ID: a.ID, Kind: KindApprover, Role: a.Role, Name: a.Name, keys: a.Keys}) {
				return
			}
		}
		for kind, list := range map[Kind][]Person{KindRequestor: d.Requestors, KindCI: d.CI} {
			for i := range list {
				if !yield(Holder{ID: list[i].ID, Kind: kind, Name: list[i].Name, keys: list[i].Keys}) {
					return
				}
			}
		}
		_ = yield(Holder{ID: KernelHolder, Kind: KindKernelRecords, keys: d.Kernel.Records}) &&
			yield(Holder{ID: KernelHolder, Kind: KindKernelAudit, keys: d.Kernel.Audit})
	}
}

// Registry is an accepted document, ready for look-ups. It never changes and
// may be shared. Only Accept and AcceptLive make one.
type Registry struct {
	doc       *Document
	digest    envelope.Digest
	keys      map[envelope.KeyID]Entry
	approvers map[envelope.ID]int
	memo      *memo // nil: every signature is verified
}

func newRegistry(doc *Document, digest envelope.Digest) *Registry {
	r := &Registry{doc: doc, digest: digest, keys: make(map[envelope.KeyID]Entry), approvers: make(map[envelope.ID]int)}
	for h := range doc.holders() {
		for i := range h.keys {
			r.keys[h.keys[i].KeyID] = Entry{Holder: h, Key: &h.keys[i]}
		}
	}
	for i := range doc.Approvers {
		r.approvers[doc.Approvers[i].ID] = i
	}
	return r
}

// Document is the document. Callers must not change it.
func (r *Registry) Document() *Document { return r.doc }

// Digest is the digest of the document's bytes.
func (r *Registry) Digest() envelope.Digest { return r.digest }

// Version is the document's version.
func (r *Registry) Version() int64 { return r.doc.Version }

// KernelID is the Kernel that the registry is for.
func (r *Registry) KernelID() envelope.ID { return r.doc.KernelID }

// Rules are the document's rules.
func (r *Registry) Rules() Rules { return r.doc.Rules }

// Approver is the approver with this ID.
func (r *Registry) Approver(id envelope.ID) (*Approver, bool) {
	i, ok := r.approvers[id]
	if !ok {
		return nil, false
	}
	return &r.doc.Approvers[i], true
}

// Lookup is the entry of a key. The failure class is key_unknown.
func (r *Registry) Lookup(id envelope.KeyID) (Entry, error) {
	e, ok := r.keys[id]
	if !ok {
		return Entry{}, failure.New(failure.KeyUnknown, "key %s is not in registry version %d", id, r.doc.Version)
	}
	return e, nil
}

// Require refuses an entry that is not of one of the kinds (role_not_allowed),
// or not the key of the person who is named (key_not_of_person).
func (e Entry) Require(person envelope.ID, kinds ...Kind) error {
	if e.ID != person {
		return failure.New(failure.KeyNotOfPerson, "key %s is %s's, not %s's", e.Key.KeyID, e.ID, person)
	}
	for _, k := range kinds {
		if e.Kind == k {
			return nil
		}
	}
	return failure.New(failure.RoleNotAllowed, "%s, as %s, may not sign this", e.ID, e.Kind)
}

// RequireValid refuses a key outside its validity at t (key_outside_validity).
func (e Entry) RequireValid(t envelope.Time) error {
	if !e.Key.ValidAt(t) {
		return failure.New(failure.KeyOutsideValidity, "key %s of %s is valid from %s to %s, not at %s", e.Key.KeyID, e.ID, e.Key.NotBefore, e.Key.NotAfter, t)
	}
	return nil
}

// VerifySigner verifies env's one signature: by a key of the person in the
// document, of one of the kinds, inside its validity at t.
func (r *Registry) VerifySigner(env envelope.Envelope, person envelope.ID, t envelope.Time, kinds ...Kind) (Entry, error) {
	entry, err := r.Lookup(env.Signatures[0].KeyID)
	if err != nil {
		return entry, err
	}
	if err := entry.Require(person, kinds...); err != nil {
		return entry, err
	}
	if err := entry.RequireValid(t); err != nil {
		return entry, err
	}
	return entry, r.Verify(entry, env)
}

// Verify checks one signature object of env under the key. A key that signs in
// a browser verifies only with its assertion, every other key only without
// (PROTOCOL section 3). Classes: webauthn_invalid, signature_invalid.
func (k *Key) Verify(env envelope.Envelope, sig envelope.Signature) error {
	switch {
	case sig.KeyID != k.KeyID:
		return failure.New(failure.SignatureInvalid, "the signature names another key")
	case k.WebAuthn == nil && sig.WebAuthn == nil:
		return signer.Verify(k.Algorithm, k.public, env.PAE(), sig.Sig)
	case k.WebAuthn != nil && sig.WebAuthn != nil:
		return k.WebAuthn.Verify(k.Algorithm, k.public, env.PAE(), *sig.WebAuthn, sig.Sig)
	case k.WebAuthn == nil:
		return failure.New(failure.WebAuthnInvalid, "key %s does not sign in a browser, yet the signature has a webauthn member", k.KeyID)
	}
	return failure.New(failure.WebAuthnInvalid, "key %s signs in a browser only, yet the signature has no webauthn member", k.KeyID)
}
