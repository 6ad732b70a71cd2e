package keyregistry_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

func TestSuspension(t *testing.T) {
	f := registrytest.New(t0)
	id := func(name string) envelope.KeyID { return envelope.KeyID(f.Signers[name].Public().KeyID()) }
	cases := []struct {
		name, by, of, already string
		edit                  func(*keyregistry.Suspension)
		want                  failure.Class
	}{
		{"own key", "tech-lead", "tech-lead", "", nil, ""},
		{"own key of a requestor", "ops", "ops", "", nil, ""},
		{"own key of ci", "ci", "ci", "", nil, ""},
		{"by superadmin", "ryan", "divlead-1", "", nil, ""},
		{"by security engineer", "sec-eng", "ryan", "", nil, ""},
		{"by technical lead", "tech-lead", "ryan", "", nil, failure.RoleNotAllowed},
		{"by division lead", "divlead-1", "ci", "", nil, failure.RoleNotAllowed},
		{"by requestor", "ops", "ci", "", nil, failure.RoleNotAllowed},
		{"by the Kernel", registrytest.KernelRecords, "ci", "", nil, failure.KeyNotOfPerson},
		{"of the Kernel's records key", "ryan", registrytest.KernelRecords, "", nil, failure.RoleNotAllowed},
		{"of the Kernel's audit key", "ryan", registrytest.KernelAudit, "", nil, failure.RoleNotAllowed},
		{"three would stay", "ryan", "divlead-1", "divlead-2", nil, ""},
		{"two would stay", "ryan", "divlead-1", "divlead-2 tech-lead", nil, failure.QuorumNotMet},
		{"two would stay, own key", "divlead-1", "divlead-1", "divlead-2 tech-lead", nil, ""},
		{"by a suspended key", "ryan", "divlead-1", "ryan", nil, failure.KeySuspended},
		{"unknown key", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.SuspendedKeyID = envelope.KeyID(strings.Repeat("0", 64)) }, failure.KeyUnknown},
		{"in another's name", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.IssuedBy = "sec-eng" }, failure.KeyNotOfPerson},
		{"another Kernel", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.KernelID = "other" }, failure.BindingMismatch},
		{"another registry", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.RegistryDigest[0] ^= 1 }, failure.BindingMismatch},
		{"another keyId inside", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.KeyID = id("sec-eng") }, failure.BindingMismatch},
		{"no reason", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.Reason = "" }, failure.FieldInvalid},
		{"reason of 1000", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.Reason = strings.Repeat("ü", 1000) }, ""},
		{"reason of 1001", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.Reason = strings.Repeat("a", 1001) }, failure.FieldInvalid},
		{"suspendedAt only informs", "ryan", "divlead-1", "", func(s *keyregistry.Suspension) { s.SuspendedAt = t0.Add(-1e9) }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &keyregistry.Suspension{
				IssuedBy: envelope.ID(c.by), KernelID: registrytest.KernelID, KeyID: id(c.by), Reason: "lost",
				RegistryDigest: f.Root, SuspendedAt: t0, SuspendedKeyID: id(c.of),
			}
			if c.edit != nil {
				c.edit(s)
			}
			env, err := envelope.Seal(context.Background(), f.Signers[c.by], envelope.TypeKeySuspension, s)
			if err != nil {
				t.Fatal(err)
			}
			suspended := func(k envelope.KeyID) bool {
				return slices.ContainsFunc(strings.Fields(c.already), func(n string) bool { return id(n) == k })
			}
			_, err = f.Registry.AcceptSuspension(env, suspended, t0)
			wantClass(t, err, c.want)
			if c.want != "" {
				return
			}
			_, err = f.Registry.AcceptSuspension(env, suspended, t0.Add(registrytest.Validity+1))
			wantClass(t, err, failure.KeyOutsideValidity)
			env.PayloadType = envelope.TypeApproval
			_, err = f.Registry.AcceptSuspension(env, suspended, t0)
			wantClass(t, err, failure.WrongPayloadType)
			env.PayloadType = envelope.TypeKeySuspension
			env.Signatures[0].Sig = slices.Concat(env.Signatures[0].Sig, []byte{0})
			_, err = f.Registry.AcceptSuspension(env, suspended, t0)
			wantClass(t, err, failure.SignatureInvalid)
		})
	}
}
