package keyregistry_test

import (
	"slices"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

var t0 = func() envelope.Time {
	t, err := envelope.ParseTime("2026-01-02T03:04:05Z")
	if err != nil {
		panic(err)
	}
	return t
}()

func none(envelope.KeyID) bool { return false }

func wantClass(t *testing.T, err error, want failure.Class) {
	t.Helper()
	if got := failure.ClassOf(err); got != want || (err == nil) != (want == "") {
		t.Errorf("got %v, want class %q", err, want)
	}
}

// clone is an independent copy of the registry's document.
func clone(t *testing.T, f *registrytest.Fixture) *keyregistry.Document {
	t.Helper()
	d, err := keyregistry.ParseDocument(f.Entries[0].Document)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestVersion1Document(t *testing.T) {
	f := registrytest.New(t0)
	entry := func(s string) keyregistry.Key { return registrytest.KeyEntry(f.Signers[s], t0) }
	extra := registrytest.KeyEntry(registrytest.Key(signer.Ed25519), t0)
	cases := map[string]struct {
		edit func(d *keyregistry.Document)
		want failure.Class
	}{
		"as built":              {func(*keyregistry.Document) {}, ""},
		"no requestor, no ci":   {func(d *keyregistry.Document) { d.Requestors, d.CI = []keyregistry.Person{}, []keyregistry.Person{} }, ""},
		"version 0":             {func(d *keyregistry.Document) { d.Version = 0 }, failure.FieldInvalid},
		"previous at version 1": {func(d *keyregistry.Document) { d.Previous = &f.Root }, failure.RegistryInvalid},
		"version 2 without":     {func(d *keyregistry.Document) { d.Version = 2 }, failure.RegistryInvalid},
		"four approvers":        {func(d *keyregistry.Document) { d.Approvers = d.Approvers[:4] }, failure.RegistryInvalid},
		"six approvers": {func(d *keyregistry.Document) {
			d.Approvers = append(d.Approvers, keyregistry.Approver{ID: "zed", Name: "Z", Role: keyregistry.DivisionLead, Keys: []keyregistry.Key{extra}})
		}, failure.RegistryInvalid},
		"approvers unsorted": {func(d *keyregistry.Document) { slices.Reverse(d.Approvers) }, failure.RegistryInvalid},
		"no superadmin":      {func(d *keyregistry.Document) { d.Approvers[2].Role = keyregistry.DivisionLead }, failure.RegistryInvalid},
		"two superadmins":    {func(d *keyregistry.Document) { d.Approvers[0].Role = keyregistry.SuperAdmin }, failure.RegistryInvalid},
		"unknown role":       {func(d *keyregistry.Document) { d.Approvers[0].Role = "boss" }, failure.RegistryInvalid},
		"ID kernel":          {func(d *keyregistry.Document) { d.CI[0].ID = keyregistry.KernelHolder }, failure.RegistryInvalid},
		"ID twice":           {func(d *keyregistry.Document) { d.CI[0].ID = "ryan" }, failure.RegistryInvalid},
		"key twice":          {func(d *keyregistry.Document) { d.CI[0].Keys = []keyregistry.Key{entry("ryan")} }, failure.RegistryKeyReused},
		"key twice, kernel":  {func(d *keyregistry.Document) { d.Kernel.Records = []keyregistry.Key{entry(registrytest.KernelAudit)} }, failure.RegistryKeyReused},
		"retired and in use": {func(d *keyregistry.Document) {
			d.Retired = []keyregistry.RetiredKey{{KeyID: entry("ryan").KeyID, Holder: "ryan"}}
		}, failure.RegistryKeyReused},
		"retired twice": {func(d *keyregistry.Document) {
			d.Retired = []keyregistry.RetiredKey{{KeyID: extra.KeyID, Holder: "a"}, {KeyID: extra.KeyID, Holder: "a"}}
		}, failure.RegistryInvalid},
		"nine keys":               {func(d *keyregistry.Document) { d.CI[0].Keys = slices.Repeat(d.CI[0].Keys, 9) }, failure.RegistryInvalid},
		"no key":                  {func(d *keyregistry.Document) { d.CI[0].Keys = []keyregistry.Key{} }, failure.RegistryInvalid},
		"no kernel records key":   {func(d *keyregistry.Document) { d.Kernel.Records = []keyregistry.Key{} }, failure.RegistryInvalid},
		"five kernel audit keys":  {func(d *keyregistry.Document) { d.Kernel.Audit = slices.Repeat(d.Kernel.Audit, 5) }, failure.RegistryInvalid},
		"audit key not ed25519":   {func(d *keyregistry.Document) { d.Kernel.Audit, d.Kernel.Records = d.Kernel.Records, d.Kernel.Audit }, failure.RegistryInvalid},
		"name empty":              {func(d *keyregistry.Document) { d.CI[0].Name = "" }, failure.FieldInvalid},
		"keyId of another key":    {func(d *keyregistry.Document) { d.CI[0].Keys[0].KeyID = extra.KeyID }, failure.RegistryInvalid},
		"algorithm does not fit":  {func(d *keyregistry.Document) { d.CI[0].Keys[0].Algorithm = signer.RSAPSSSHA256 }, failure.RegistryInvalid},
		"P-384 as P-256":          {func(d *keyregistry.Document) { d.Approvers[4].Keys[0].Algorithm = signer.ECDSAP256SHA256 }, failure.RegistryInvalid},
		"RSA as PKCS1":            {func(d *keyregistry.Document) { d.Approvers[0].Keys[0].Algorithm = signer.RSAPKCS1SHA256 }, ""},
		"ends before it begins":   {func(d *keyregistry.Document) { d.CI[0].Keys[0].NotAfter = d.CI[0].Keys[0].NotBefore.Add(-1) }, failure.RegistryInvalid},
		"one second of validity":  {func(d *keyregistry.Document) { d.CI[0].Keys[0].NotAfter = d.CI[0].Keys[0].NotBefore }, ""},
		"origin unknown":          {func(d *keyregistry.Document) { d.CI[0].Keys[0].Origin = "tpm" }, failure.RegistryInvalid},
		"origin webauthn, none":   {func(d *keyregistry.Document) { d.CI[0].Keys[0].Origin = keyregistry.OriginWebAuthn }, failure.RegistryInvalid},
		"file in real registry":   {func(d *keyregistry.Document) { d.Test = false }, failure.RegistryInvalid},
		"ttl 1 in test":           {func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 1 }, ""},
		"ttl 0":                   {func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 0 }, failure.FieldInvalid},
		"ttl 30 days":             {func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 2592000 }, ""},
		"ttl over 30 days":        {func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 2592001 }, failure.FieldInvalid},
		"ratification over 7 d":   {func(d *keyregistry.Document) { d.Rules.RatificationWindowSeconds = 604801 }, failure.FieldInvalid},
		"minNonBrowser 3":         {func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = 3 }, ""},
		"minNonBrowser 4":         {func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = 4 }, failure.FieldInvalid},
		"minNonBrowser negative":  {func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = -1 }, failure.FieldInvalid},
		"missing member (null)":   {func(d *keyregistry.Document) { d.CI[0].Keys[0].PublicKey = nil }, failure.FieldInvalid},
		"approver under ID ops":   {func(d *keyregistry.Document) { d.Requestors[0].ID = "tech-lead" }, failure.RegistryInvalid},
		"requestor below nothing": {func(d *keyregistry.Document) { d.Requestors = append(d.Requestors, d.Requestors[0]) }, failure.RegistryInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := clone(t, f)
			c.edit(d)
			data, err := envelope.Canonical(d)
			if err != nil {
				t.Fatal(err)
			}
			_, err = keyregistry.ParseDocument(data)
			if name == "version 0" || name == "minNonBrowser negative" { // also no Int
				if failure.ClassOf(err) == "" {
					t.Errorf("accepted: %v", err)
				}
				return
			}
			wantClass(t, err, c.want)
		})
	}
}

func TestVersion1Statement(t *testing.T) {
	f := registrytest.New(t0)
	five := f.Approvers()
	d := clone(t, f)
	accept := func(entry keyregistry.SignedDocument, root envelope.Digest) error {
		_, err := keyregistry.Accept(nil, root, entry)
		return err
	}
	wantClass(t, accept(registrytest.Entry(d, five...), f.Root), "")
	wantClass(t, accept(registrytest.Entry(d, five...), envelope.Digest{}), failure.RegistryRootMismatch)
	wantClass(t, accept(registrytest.Entry(d, five[:4]...), f.Root), failure.RegistryThresholdNotMet)
	wantClass(t, accept(registrytest.Entry(d), f.Root), failure.EnvelopeMalformed)
	wantClass(t, accept(registrytest.Entry(d, append(five, f.Signers["ops"])...), f.Root), failure.RegistryThresholdNotMet)
	wantClass(t, accept(registrytest.Entry(d, append(five, registrytest.Key(signer.Ed25519))...), f.Root), failure.RegistryThresholdNotMet)
	wantClass(t, accept(registrytest.Entry(d, append(five, five[0])...), f.Root), failure.EnvelopeMalformed)

	bad := registrytest.Entry(d, five...)
	bad.Statement.Signatures[1].Sig[8] ^= 1
	wantClass(t, accept(bad, f.Root), failure.SignatureInvalid)
	bad = registrytest.Entry(d, five...)
	bad.Statement.PayloadType = envelope.TypeApproval
	wantClass(t, accept(bad, f.Root), failure.WrongPayloadType)
	other := clone(t, f)
	other.Rules.SeparationOfDuties = true
	bad = registrytest.Entry(other, five...)
	bad.Document = f.Entries[0].Document
	wantClass(t, accept(bad, f.Root), failure.BindingMismatch)

	late := clone(t, f)
	late.Approvers[0].Keys[0].NotAfter = t0.Add(-1)
	entry := registrytest.Entry(late, five...)
	wantClass(t, accept(entry, envelope.DigestOf(entry.Document)), failure.KeyOutsideValidity)
	late.Approvers[0].Keys[0].NotAfter = t0
	entry = registrytest.Entry(late, five...)
	wantClass(t, accept(entry, envelope.DigestOf(entry.Document)), "")
}

func TestAcceptLive(t *testing.T) {
	f := registrytest.New(t0)
	ryan := envelope.KeyID(f.Signers["ryan"].Public().KeyID())
	for _, c := range []struct {
		suspended func(envelope.KeyID) bool
		now       envelope.Time
		want      failure.Class
	}{
		{none, t0.Add(-300), ""}, {none, t0.Add(-301), failure.TimeInvalid},
		{none, t0.Add(14 * 86400), ""}, {none, t0.Add(14*86400 + 1), failure.TimeInvalid},
		{func(k envelope.KeyID) bool { return k == ryan }, t0, failure.KeySuspended},
	} {
		_, err := keyregistry.AcceptLive(nil, f.Root, f.Entries[0], c.suspended, c.now)
		wantClass(t, err, c.want)
	}
}
