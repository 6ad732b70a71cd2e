package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/softhsm"
)

// keyring is the keys of the gateway's transcripts: everybody has a token.
type keyring map[string]signer.Signer

// algorithms give each another kind of key, in tokens of their names.
var algorithms = map[string]signer.Algorithm{
	"superadmin": signer.ECDSAP256SHA256, "sec-eng": signer.Ed25519, "tech-lead": signer.ECDSAP384SHA384, "divlead-1": signer.ECDSAP256SHA256,
	"divlead-2": signer.ECDSAP256SHA256, "ops": signer.ECDSAP256SHA256, "ci": signer.ECDSAP256SHA256, "kernel": signer.ECDSAP256SHA256, "log": signer.Ed25519,
}

// provision makes the tokens; vars are the keys' URIs, as SEC_ENG_KEY=pkcs11:...
func provision(t *testing.T, env *softhsm.Env) (p keyring, vars []string) {
	t.Helper()
	p = keyring{}
	uris := map[string]string{}
	for name, algorithm := range algorithms {
		token, err := env.CreateToken(name)
		must(t, err)
		key, err := token.GenerateKey(name, []byte{1}, algorithm)
		must(t, err)
		vars = append(vars, strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"_KEY="+key.URI.Text())
		uris[name] = key.URI.Text()
	}
	for name, uri := range uris { // a module's tokens are all there before it is opened
		s, err := open.Open(t.Context(), uri, open.Options{})
		must(t, err)
		p[name] = s
		t.Cleanup(func() { _ = p[name].Close() })
	}
	return p, vars
}

// registry is version 1, signed by all five.
func (p keyring) registry(t *testing.T) keyregistry.SignedDocument {
	t.Helper()
	now := envelope.TimeOf(time.Now())
	key := func(name string) []keyregistry.Key {
		return []keyregistry.Key{keyregistry.NewKey(p[name].Public(), p[name].Algorithm(), keyregistry.OriginPKCS11, now.Add(-3600), now.Add(365*86400))}
	}
	doc := &keyregistry.Document{
		IssuedAt: now, KernelID: "prod", Rules: keyregistry.DefaultRules(), Version: 1,
		CI:         []keyregistry.Person{{ID: "ci", Name: "CI", Keys: key("ci")}},
		Requestors: []keyregistry.Person{{ID: "ops", Name: "Operations", Keys: key("ops")}},
		Kernel:     keyregistry.KernelKeys{Audit: key("log"), Records: key("kernel")},
	}
	roles := map[string]keyregistry.Role{"divlead-1": keyregistry.DivisionLead, "divlead-2": keyregistry.DivisionLead, "sec-eng": keyregistry.SecurityEngineer,
		"superadmin": keyregistry.SuperAdmin, "tech-lead": keyregistry.TechnicalLead}
	five := make([]string, 0, len(roles))
	for name := range roles {
		five = append(five, name)
	}
	slices.Sort(five)
	for _, name := range five {
		doc.Approvers = append(doc.Approvers, keyregistry.Approver{ID: envelope.ID(name), Name: name, Role: roles[name], Keys: key(name)})
	}
	document, err := envelope.Canonical(doc)
	must(t, err)
	payload, err := envelope.Canonical(keyregistry.NewStatement(doc, document))
	must(t, err)
	statement := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeRegistryStatement}
	for _, name := range five {
		sig, err := envelope.Sign(context.Background(), p[name], statement)
		must(t, err)
		statement.Signatures = append(statement.Signatures, sig)
	}
	return keyregistry.SignedDocument{Document: document, Statement: statement}
}
