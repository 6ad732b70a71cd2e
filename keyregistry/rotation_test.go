package keyregistry_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// rotation is a successor of the fixture's version 1, to be spoilt by a case.
type rotation struct {
	f       *registrytest.Fixture
	doc     *keyregistry.Document
	signers []signer.Signer
	fresh   signer.Signer
}

// replace gives approver i the fresh key alone and retires the old one.
func (r *rotation) replace(i int) {
	a := &r.doc.Approvers[i]
	r.doc.Retired = append(r.doc.Retired, keyregistry.RetiredKey{Holder: a.ID, KeyID: a.Keys[0].KeyID})
	a.Keys = []keyregistry.Key{registrytest.KeyEntry(r.fresh, t0)}
}

func (r *rotation) by(names ...string) {
	r.signers = nil
	for _, n := range names {
		r.signers = append(r.signers, r.f.Signers[n])
	}
}

func byID(a, b keyregistry.Key) int { return strings.Compare(string(a.KeyID), string(b.KeyID)) }

func TestRotation(t *testing.T) {
	f := registrytest.New(t0)
	cases := map[string]struct {
		edit func(r *rotation)
		want failure.Class
	}{
		"nothing changed, three sign":   {func(*rotation) {}, ""},
		"two sign":                      {func(r *rotation) { r.by("ryan", "sec-eng") }, failure.RegistryThresholdNotMet},
		"all five sign":                 {func(r *rotation) { r.signers = f.Approvers() }, ""},
		"requestor signs as well":       {func(r *rotation) { r.by("ryan", "sec-eng", "tech-lead", "ops") }, failure.RegistryThresholdNotMet},
		"kernel signs as well":          {func(r *rotation) { r.by("ryan", "sec-eng", "tech-lead", registrytest.KernelRecords) }, failure.RegistryThresholdNotMet},
		"other Kernel":                  {func(r *rotation) { r.doc.KernelID = "other" }, failure.RegistryChainBroken},
		"version skipped":               {func(r *rotation) { r.doc.Version = 3 }, failure.RegistryChainBroken},
		"previous of another":           {func(r *rotation) { r.doc.Previous = new(envelope.Digest) }, failure.RegistryChainBroken},
		"issued at the same second":     {func(r *rotation) { r.doc.IssuedAt = t0 }, ""},
		"issued earlier":                {func(r *rotation) { r.doc.IssuedAt = t0.Add(-1) }, failure.RegistryChainBroken},
		"validity changed":              {func(r *rotation) { r.doc.CI[0].Keys[0].NotAfter = t0.Add(99) }, ""},
		"signer over in the new one":    {func(r *rotation) { r.doc.Approvers[2].Keys[0].NotAfter = t0 }, failure.KeyOutsideValidity},
		"signer over, did not sign":     {func(r *rotation) { r.doc.Approvers[0].Keys[0].NotAfter = t0 }, ""},
		"algorithm of a kept key":       {func(r *rotation) { r.doc.Approvers[0].Keys[0].Algorithm = signer.RSAPKCS1SHA256 }, failure.RegistryKeyReused},
		"origin of a kept key":          {func(r *rotation) { r.doc.CI[0].Keys[0].Origin = keyregistry.OriginPKCS11 }, failure.RegistryKeyReused},
		"key given to another":          {func(r *rotation) { r.doc.CI[0].ID = "ci2" }, failure.RegistryKeyReused},
		"key dropped, not retired":      {func(r *rotation) { r.doc.CI = []keyregistry.Person{} }, failure.RegistryKeyReused},
		"key dropped and retired":       {func(r *rotation) { r.retire(r.doc.CI[0], "ci"); r.doc.CI = []keyregistry.Person{} }, ""},
		"retired under another":         {func(r *rotation) { r.retire(r.doc.CI[0], "ops"); r.doc.CI = []keyregistry.Person{} }, failure.RegistryKeyReused},
		"new key without possession":    {func(r *rotation) { r.replace(0) }, failure.RegistryThresholdNotMet},
		"new key signs as well":         {func(r *rotation) { r.replace(0); r.signers = append(r.signers, r.fresh) }, ""},
		"new key is not the old quorum": {func(r *rotation) { r.replace(0); r.by("ryan", "sec-eng"); r.signers = append(r.signers, r.fresh) }, failure.RegistryThresholdNotMet},
		"leaver is not the new quorum": {func(r *rotation) {
			r.doc.Retired = append(r.doc.Retired, keyregistry.RetiredKey{Holder: "divlead-1", KeyID: r.doc.Approvers[0].Keys[0].KeyID})
			r.doc.Approvers[0].ID = "divlead-0" // a new person with a key of their own
			r.doc.Approvers[0].Keys = []keyregistry.Key{registrytest.KeyEntry(r.fresh, t0)}
			r.by("divlead-1", "ryan", "sec-eng")
			r.signers = append(r.signers, r.fresh)
		}, ""},
		"two keys of one are one person": {func(r *rotation) {
			a := &r.doc.Approvers[2]
			a.Keys = append(a.Keys, registrytest.KeyEntry(r.fresh, t0))
			slices.SortFunc(a.Keys, byID)
			r.by("ryan", "sec-eng")
			r.signers = append(r.signers, r.fresh)
		}, failure.RegistryThresholdNotMet},
		"kernel key moves to records": {func(r *rotation) {
			k := r.doc.Kernel.Audit[0]
			r.doc.Kernel.Audit = []keyregistry.Key{registrytest.KeyEntry(r.fresh, t0)}
			r.doc.Kernel.Records = append(r.doc.Kernel.Records, k)
		}, ""},
		"kernel key goes to a person": {func(r *rotation) {
			k := r.doc.Kernel.Audit[0]
			r.doc.Kernel.Audit = []keyregistry.Key{registrytest.KeyEntry(r.fresh, t0)}
			r.doc.CI[0].Keys = append(r.doc.CI[0].Keys, k)
			slices.SortFunc(r.doc.CI[0].Keys, byID)
		}, failure.RegistryKeyReused},
		"requestor becomes approver": {func(r *rotation) { r.promote(); r.signers = append(r.signers, f.Signers["ops"]) }, ""},
		"promoted, key did not sign": {func(r *rotation) { r.promote() }, failure.RegistryThresholdNotMet},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &rotation{f: f, doc: clone(t, f), fresh: registrytest.Key(signer.Ed25519)}
			r.doc.Version, r.doc.Previous, r.doc.IssuedAt = 2, &f.Root, t0.Add(60)
			r.by("ryan", "sec-eng", "tech-lead")
			c.edit(r)
			_, err := keyregistry.Accept(f.Registry, f.Root, registrytest.Entry(r.doc, r.signers...))
			wantClass(t, err, c.want)
		})
	}
}

func (r *rotation) retire(p keyregistry.Person, holder envelope.ID) {
	r.doc.Retired = append(r.doc.Retired, keyregistry.RetiredKey{Holder: holder, KeyID: p.Keys[0].KeyID})
}

// promote puts requestor ops in divlead-2's seat, with id and key kept.
func (r *rotation) promote() {
	old, ops := r.doc.Approvers[1], r.doc.Requestors[0]
	r.doc.Requestors = []keyregistry.Person{}
	r.doc.Approvers[1] = keyregistry.Approver{ID: ops.ID, Keys: ops.Keys, Name: ops.Name, Role: keyregistry.DivisionLead}
	slices.SortFunc(r.doc.Approvers, func(a, b keyregistry.Approver) int { return strings.Compare(string(a.ID), string(b.ID)) })
	r.doc.Retired = append(r.doc.Retired, keyregistry.RetiredKey{Holder: old.ID, KeyID: old.Keys[0].KeyID})
}

// TestRetiredNeverReturns: a third version can neither forget a retired key
// nor take it up again, under any name.
func TestRetiredNeverReturns(t *testing.T) {
	f := registrytest.New(t0)
	two := &rotation{f: f, doc: clone(t, f), fresh: registrytest.Key(signer.Ed25519)}
	two.doc.Version, two.doc.Previous = 2, &f.Root
	ci := two.doc.CI[0]
	two.retire(ci, "ci")
	two.doc.CI = []keyregistry.Person{}
	two.by("ryan", "sec-eng", "tech-lead")
	reg, err := keyregistry.Accept(f.Registry, f.Root, registrytest.Entry(two.doc, two.signers...))
	if err != nil {
		t.Fatal(err)
	}
	digest := reg.Digest()
	for name, edit := range map[string]func(d *keyregistry.Document){
		"forgotten":          func(d *keyregistry.Document) { d.Retired = []keyregistry.RetiredKey{} },
		"under another name": func(d *keyregistry.Document) { d.Retired[0].Holder = "ops" },
		"returned":           func(d *keyregistry.Document) { d.CI = []keyregistry.Person{ci} },
		"returned, unlisted": func(d *keyregistry.Document) {
			d.CI, d.Retired = []keyregistry.Person{ci}, []keyregistry.RetiredKey{}
		},
	} {
		data, err := envelope.Canonical(reg.Document())
		if err != nil {
			t.Fatal(err)
		}
		d, err := keyregistry.ParseDocument(data)
		if err != nil {
			t.Fatal(err)
		}
		d.Version, d.Previous = 3, &digest
		edit(d)
		_, err = keyregistry.Accept(reg, f.Root, registrytest.Entry(d, two.signers...))
		if failure.ClassOf(err) != failure.RegistryKeyReused {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
