package upgrade_test

import (
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Of rejections, requests for tests, rollbacks and triggers: a reason is
// required, and every text is one that people can read.
func TestWordsOfRecords(t *testing.T) {
	b := newBallot(t, "divlead-1", "ryan", "sec-eng")
	reg := b.w.regs.Last()
	reject := func(reason string) error {
		env := b.w.seal("ryan", envelope.TypeRejection, upgrade.Rejection{ApproverID: "ryan", KernelID: kernelID, KeyID: keyID("ryan"), ManifestDigest: b.digest,
			Reason: reason, RegistryDigest: b.w.inForce, RejectionTs: decided, UpgradeID: upgradeID})
		_, err := upgrade.VerifyRejection(reg, b.manifest, b.digest, env, decided)
		return err
	}
	request := func(notes string, tests ...string) error {
		env := b.w.seal("ryan", envelope.TypeTestRequest, upgrade.TestRequest{ApproverID: "ryan", KernelID: kernelID, KeyID: keyID("ryan"), ManifestDigest: b.digest,
			Notes: notes, RegistryDigest: b.w.inForce, RequestTs: decided, Tests: tests, UpgradeID: upgradeID})
		_, err := upgrade.VerifyTestRequest(reg, b.manifest, b.digest, env, decided)
		return err
	}
	trigger := func(reason string) error {
		env := b.w.seal("ryan", envelope.TypeEmergencyTrigger, upgrade.EmergencyTrigger{KernelID: kernelID, KeyID: keyID("ryan"), ManifestDigest: b.digest,
			PatchHash: b.manifest.PatchHash, Reason: reason, RegistryDigest: b.w.inForce, TriggeredAt: decided, TriggeredBy: "ryan", UpgradeID: upgradeID})
		_, err := upgrade.VerifyTrigger(reg, b.manifest, b.digest, env, decided)
		return err
	}
	rollback := func(reason string) error {
		env := b.w.newManifest(func(m *upgrade.Manifest) {
			m.Type, m.BaseRevision = upgrade.TypeRollback, upgrade.RevisionOf(patch)
			m.Rollback = &upgrade.Rollback{Reason: reason, UpgradeID: "0b7f1d5e-3c1a-4c57-9d0e-000000000099"}
		})
		_, err := upgrade.VerifyManifest(reg, env, decided)
		return err
	}
	long := strings.Repeat("x", 1001)
	for name, c := range map[string]struct {
		err error
		ok  bool
	}{
		"rejection":                     {reject("no"), true},
		"rejection without a reason":    {reject(""), false},
		"rejection of 1001":             {reject(long), false},
		"rejection that turns":          {reject("a\u202eb"), false},
		"request":                       {request("", "soak"), true},
		"request with notes":            {request("why", "soak"), true},
		"request of nothing":            {request("why"), false},
		"request of 17":                 {request("", strings.Split("a b c d e f g h i j k l m n o p q", " ")...), false},
		"request of a nameless test":    {request("", ""), false},
		"request with notes of 1001":    {request(long, "soak"), false},
		"request of a test that breaks": {request("", "a\rb"), false},
		"rollback":                      {rollback("bad"), true},
		"rollback without a reason":     {rollback(""), false},
		"rollback of 4001":              {rollback(strings.Repeat("x", 4001)), false},
		"trigger":                       {trigger("fire"), true},
		"trigger without a reason":      {trigger(""), false},
		"trigger of 1001":               {trigger(long), false},
	} {
		if class := failure.ClassOf(c.err); c.ok != (c.err == nil) || !c.ok && class != failure.FieldInvalid {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}
