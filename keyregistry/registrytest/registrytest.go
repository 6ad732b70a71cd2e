// Package registrytest builds a valid test registry whose keys are all in
// memory, for the tests of other packages. It is never linked into a program.
package registrytest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/filekey"
)

// KernelID is the Kernel of the test registry.
const KernelID envelope.ID = "kernel-test"

// The names under which Fixture.Signers holds the Kernel's keys; everybody
// else's key stands under the person's ID.
const (
	KernelRecords = "kernel-records"
	KernelAudit   = "kernel-audit"
)

// Validity is how long before and after the issue each key is valid, in seconds.
const Validity = 365 * 86400

// Fixture is an accepted version 1 and what signs for the people in it.
type Fixture struct {
	Root     envelope.Digest
	Entries  []keyregistry.SignedDocument
	Registry *keyregistry.Registry
	Signers  map[string]signer.Signer
}

// New builds a registry issued at the given time: approvers ryan (superadmin,
// P-256), sec-eng (security-engineer, Ed25519), tech-lead (technical-lead,
// P-384), divlead-1 (RSA-PSS) and divlead-2 (P-256); requestor ops, ci system
// ci, and the Kernel's two keys. Keys are random, the rest depends on issuedAt
// only. It panics where the registry is refused: a fault of the test's own.
func New(issuedAt envelope.Time) *Fixture {
	f := &Fixture{Signers: map[string]signer.Signer{
		"ryan": Key(signer.ECDSAP256SHA256), "sec-eng": Key(signer.Ed25519), "tech-lead": Key(signer.ECDSAP384SHA384),
		"divlead-1": Key(signer.RSAPSSSHA256), "divlead-2": Key(signer.ECDSAP256SHA256),
		"ops": Key(signer.ECDSAP256SHA256), "ci": Key(signer.Ed25519),
		KernelRecords: Key(signer.ECDSAP256SHA256), KernelAudit: Key(signer.Ed25519),
	}}
	doc := f.document(issuedAt)
	entry := Entry(doc, f.Approvers()...)
	f.Root = envelope.DigestOf(entry.Document)
	f.Entries = []keyregistry.SignedDocument{entry}
	f.Registry = must(keyregistry.Accept(nil, f.Root, entry))
	return f
}

func (f *Fixture) document(issuedAt envelope.Time) *keyregistry.Document {
	keys := func(name string) []keyregistry.Key {
		return []keyregistry.Key{KeyEntry(f.Signers[name], issuedAt)}
	}
	approver := func(id envelope.ID, role keyregistry.Role) keyregistry.Approver {
		return keyregistry.Approver{ID: id, Keys: keys(string(id)), Name: "Test " + string(id), Role: role}
	}
	person := func(id envelope.ID) []keyregistry.Person {
		return []keyregistry.Person{{ID: id, Keys: keys(string(id)), Name: "Test " + string(id)}}
	}
	return &keyregistry.Document{
		Approvers: []keyregistry.Approver{
			approver("divlead-1", keyregistry.DivisionLead), approver("divlead-2", keyregistry.DivisionLead),
			approver("ryan", keyregistry.SuperAdmin), approver("sec-eng", keyregistry.SecurityEngineer),
			approver("tech-lead", keyregistry.TechnicalLead),
		},
		CI: person("ci"), Requestors: person("ops"), IssuedAt: issuedAt, KernelID: KernelID,
		Kernel:  keyregistry.KernelKeys{Audit: keys(KernelAudit), Records: keys(KernelRecords)},
		Retired: []keyregistry.RetiredKey{}, Rules: keyregistry.DefaultRules(), Test: true, Version: 1,
	}
}

// Approvers are the signers of the five approvers, sorted by ID.
func (f *Fixture) Approvers() []signer.Signer {
	var all []signer.Signer
	for _, id := range []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"} {
		all = append(all, f.Signers[id])
	}
	return all
}

// KeyEntry is a registry entry for a signer's key, of origin file.
func KeyEntry(s signer.Signer, at envelope.Time) keyregistry.Key {
	return keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginFile, at.Add(-Validity), at.Add(Validity))
}

// Entry writes doc canonically and lets the signers sign its statement. It
// checks nothing, so that tests can build what must be refused.
func Entry(doc *keyregistry.Document, signers ...signer.Signer) keyregistry.SignedDocument {
	data := must(envelope.Canonical(doc))
	payload := must(envelope.Canonical(keyregistry.NewStatement(doc, data)))
	env := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeRegistryStatement}
	for _, s := range signers {
		env.Signatures = append(env.Signatures, must(envelope.Sign(context.Background(), s, env)))
	}
	return keyregistry.SignedDocument{Document: data, Statement: env}
}

// Key is a new random key in memory for the algorithm.
func Key(a signer.Algorithm) signer.Signer {
	var private crypto.Signer
	switch a {
	case signer.ECDSAP256SHA256:
		private = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case signer.ECDSAP384SHA384:
		private = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case signer.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		private = must(key, err)
	case signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		private = must(rsa.GenerateKey(rand.Reader, 2048))
	default:
		panic(fmt.Sprintf("registrytest: no algorithm %q", a))
	}
	return must(filekey.New(private, a))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Errorf("registrytest: %w", err))
	}
	return v
}
