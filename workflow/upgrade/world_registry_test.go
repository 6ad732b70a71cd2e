package upgrade_test

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/webauthn"
)

// The one browser credential of a test: its origin and relying party.
const (
	origin = "https://gate.example"
	rpID   = "gate.example"
)

// clientDataOf is what a browser writes for a message.
func clientDataOf(message []byte) string {
	return `{"type":"webauthn.get","challenge":"` + webauthn.Challenge(message) + `","origin":"` + origin + `","crossOrigin":false}`
}

// authenticatorDataOf has UP and UV set, and a counter.
func authenticatorDataOf(rp string, flags byte) []byte {
	sum := sha256.Sum256([]byte(rp))
	return append(sum[:], flags, 0, 0, 0, 9)
}

// sign is name's signature object over env; in a browser, with its assertion.
func (w *world) sign(name string, env envelope.Envelope) envelope.Signature {
	ctx, s := context.Background(), keys()[name]
	if env.PayloadType != envelope.TypeRegistryStatement {
		s = w.signer(name)
	}
	if !w.browser[name] {
		return must(envelope.Sign(ctx, s, env))()
	}
	sig := envelope.Signature{KeyID: envelope.KeyID(s.Public().KeyID()), WebAuthn: &envelope.WebAuthn{
		AuthenticatorData: authenticatorDataOf(rpID, 0x05), ClientDataJSON: []byte(clientDataOf(env.PAE())),
	}}
	if w.assertion != nil && env.PayloadType != envelope.TypeRegistryStatement {
		w.assertion(name, &sig)
	}
	sum := sha256.Sum256(sig.WebAuthn.ClientDataJSON)
	sig.Sig = must(s.Sign(ctx, slices.Concat(sig.WebAuthn.AuthenticatorData, sum[:])))()
	return sig
}

func (w *world) entryOf(name string) keyregistry.Key {
	k := entryOf(name)
	if w.browser[name] {
		k.Origin = keyregistry.OriginWebAuthn
		k.WebAuthn = &webauthn.Credential{CredentialID: "AQ", RPID: rpID, Origins: []string{origin}}
	}
	return k
}

// holders are the names of all approver keys of a document.
func holders(doc *keyregistry.Document) []string {
	var names []string
	for i := range doc.Approvers {
		for _, k := range doc.Approvers[i].Keys {
			names = append(names, nameOf(k.KeyID))
		}
	}
	return names
}

func nameOf(id envelope.KeyID) string {
	for name, s := range keys() {
		if s.Public().KeyID() == string(id) {
			return name
		}
	}
	panic("no such key: " + id)
}

// issue signs a document's statement, as it is: whether it may follow is judged later.
func (w *world) issue(doc *keyregistry.Document, names ...string) keyregistry.SignedDocument {
	data := must(envelope.Canonical(doc))()
	env := envelope.Envelope{Payload: must(envelope.Canonical(keyregistry.NewStatement(doc, data)))(), PayloadType: envelope.TypeRegistryStatement}
	for _, name := range names {
		env.Signatures = append(env.Signatures, w.sign(name, env))
	}
	return keyregistry.SignedDocument{Document: data, Statement: env}
}

// rotation is a further version of the registry: what changes, and who signs.
type rotation struct {
	edit    func(*keyregistry.Document)
	signers []string
	entry   func(*keyregistry.SignedDocument)
}

// rotate appends the rotations' versions, a minute apart.
func (w *world) rotate() {
	for _, r := range w.rotations {
		last := w.entries[len(w.entries)-1]
		doc := new(keyregistry.Document)
		if err := envelope.DecodeCanonical(last.Document, keyregistry.MaxDocument, doc); err != nil {
			w.t.Fatal(err)
		}
		previous := envelope.DigestOf(last.Document)
		doc.Version, doc.Previous, doc.IssuedAt = doc.Version+1, &previous, doc.IssuedAt.Add(60)
		call(r.edit, doc)
		entry := w.issue(doc, r.signers...)
		call(r.entry, &entry)
		w.entries = append(w.entries, entry)
	}
}
