package main

import (
	"context"
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/softhsm"
)

// provision makes one SoftHSM2 token and key for everybody, each with another
// algorithm, then opens them all.
func provision(ctx context.Context, dir string) (map[string]signer.Signer, error) {
	env, err := softhsm.New(dir)
	if err != nil {
		return nil, err
	}
	uris := map[string]string{}
	for name, algorithm := range map[string]signer.Algorithm{
		"ryan": signer.ECDSAP256SHA256, "sec-eng": signer.Ed25519, "tech-lead": signer.ECDSAP384SHA384, "divlead-1": signer.RSAPSSSHA256,
		"divlead-2": signer.RSAPKCS1SHA256, "ops": signer.ECDSAP256SHA256, "ci": signer.ECDSAP256SHA256, "records": signer.ECDSAP256SHA256, "audit": signer.Ed25519,
	} {
		token, err := env.CreateToken(name)
		if err != nil {
			return nil, err
		}
		key, err := token.GenerateKey(name, []byte{1}, algorithm)
		if err != nil {
			return nil, err
		}
		uris[name] = key.URI.Text()
	}
	signers := map[string]signer.Signer{}
	for name, uri := range uris {
		if signers[name], err = open.Open(ctx, uri, open.Options{}); err != nil {
			return nil, err
		}
	}
	return signers, nil
}

// register makes registry version 1, signed by all five on their tokens.
func register(ctx context.Context, signers map[string]signer.Signer, now envelope.Time) (keyregistry.SignedDocument, error) {
	key := func(name string) []keyregistry.Key {
		s := signers[name]
		return []keyregistry.Key{keyregistry.NewKey(s.Public(), s.Algorithm(), keyregistry.OriginPKCS11, now.Add(-3600), now.Add(365*86400))}
	}
	doc := &keyregistry.Document{
		IssuedAt: now, KernelID: kernelID, Rules: keyregistry.DefaultRules(), Version: 1,
		CI:         []keyregistry.Person{{ID: "ci", Name: "CI", Keys: key("ci")}},
		Requestors: []keyregistry.Person{{ID: "ops", Name: "Operations", Keys: key("ops")}},
		Kernel:     keyregistry.KernelKeys{Audit: key("audit"), Records: key("records")},
	}
	var five []signer.Signer
	for _, p := range []struct {
		id   string
		role keyregistry.Role
	}{
		{"divlead-1", keyregistry.DivisionLead}, {"divlead-2", keyregistry.DivisionLead}, {"ryan", keyregistry.SuperAdmin},
		{"sec-eng", keyregistry.SecurityEngineer}, {"tech-lead", keyregistry.TechnicalLead},
	} {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(p.id), Name: p.id, Role: p.role, Keys: key(p.id)})
		five = append(five, signers[p.id])
	}
	document, err := envelope.Canonical(doc)
	if err != nil {
		return keyregistry.SignedDocument{}, err
	}
	payload, err := envelope.Canonical(keyregistry.NewStatement(doc, document))
	if err != nil {
		return keyregistry.SignedDocument{}, err
	}
	statement := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeRegistryStatement}
	for _, s := range five {
		sig, err := envelope.Sign(ctx, s, statement)
		if err != nil {
			return keyregistry.SignedDocument{}, fmt.Errorf("sign the registry: %w", err)
		}
		statement.Signatures = append(statement.Signatures, sig)
	}
	return keyregistry.SignedDocument{Document: document, Statement: statement}, nil
}
