package upgrade_test

import (
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func nobody(envelope.KeyID) bool { return false }

// ballot is an upgrade and what people decided on it.
type ballot struct {
	w        *world
	manifest *upgrade.Manifest
	digest   envelope.Digest
	rows     []upgrade.Decision
}

func newBallot(t *testing.T, approvers ...string) *ballot {
	w := newWorld(t)
	w.register()
	env := w.newManifest(nil)
	b := &ballot{w: w, manifest: decodeManifest(env), digest: env.PayloadDigest()}
	for i, a := range w.newBundle(env, approvers).Approvals {
		b.rows = append(b.rows, upgrade.Decision{Person: envelope.ID(approvers[i]), SignedAt: decided.Add(-60), Envelope: a})
	}
	return b
}

func (b *ballot) reject(who string, at envelope.Time) {
	env := b.w.seal(who, envelope.TypeRejection, upgrade.Rejection{
		ApproverID: envelope.ID(who), KernelID: kernelID, KeyID: keyID(who), ManifestDigest: b.digest, Reason: "no",
		RegistryDigest: b.w.inForce, RejectionTs: at, UpgradeID: upgradeID,
	})
	b.rows = append(b.rows, upgrade.Decision{Person: envelope.ID(who), Rejected: true, SignedAt: at, Envelope: env})
}

func (b *ballot) count(suspended upgrade.Suspended, t envelope.Time) upgrade.Count {
	return upgrade.Tally(b.w.regs.Last(), b.manifest, b.digest, b.rows, suspended, t)
}

func status(c upgrade.Count, who envelope.ID) upgrade.SeatStatus {
	for _, s := range c.Seats {
		if s.Person == who {
			return s.Status
		}
	}
	return ""
}

func TestTally(t *testing.T) {
	three := []string{"divlead-1", "ryan", "sec-eng"}
	for name, c := range map[string]struct {
		approvers []string
		change    func(*ballot)
		suspended upgrade.Suspended
		at        envelope.Time
		quorum    bool
		ryan      upgrade.SeatStatus
	}{
		"three":                   {three, func(*ballot) {}, nobody, decided, true, upgrade.SeatApproved},
		"two do nothing":          {[]string{"ryan", "sec-eng"}, func(*ballot) {}, nobody, decided, false, upgrade.SeatApproved},
		"one person thrice":       {[]string{"ryan", "ryan", "ryan"}, func(*ballot) {}, nobody, decided, false, upgrade.SeatApproved},
		"at the TTL":              {three, func(*ballot) {}, nobody, decided.Add(1209600 - 60), true, upgrade.SeatApproved},
		"a second after the TTL":  {three, func(*ballot) {}, nobody, decided.Add(1209601 - 60), false, upgrade.SeatStale},
		"a later rejection":       {three, func(b *ballot) { b.reject("ryan", decided.Add(-30)) }, nobody, decided, false, upgrade.SeatRejected},
		"an earlier rejection":    {three, func(b *ballot) { b.reject("ryan", decided.Add(-90)) }, nobody, decided, true, upgrade.SeatApproved},
		"a tie":                   {three, func(b *ballot) { b.reject("ryan", decided.Add(-60)) }, nobody, decided, false, upgrade.SeatRejected},
		"a suspended key":         {three, func(*ballot) {}, func(k envelope.KeyID) bool { return k == keyID("ryan") }, decided, false, upgrade.SeatSuspended},
		"another manifest":        {three, func(b *ballot) { b.digest = patch }, nobody, decided, false, upgrade.SeatVoid},
		"a row in another's name": {three, func(b *ballot) { b.rows[0].Envelope, b.rows[2].Envelope = b.rows[1].Envelope, b.rows[1].Envelope }, nobody, decided, false, upgrade.SeatApproved},
		"a row with a later time": {three, func(b *ballot) { b.rows[1].SignedAt = decided; b.reject("ryan", decided.Add(-30)) }, nobody, decided, false, upgrade.SeatVoid},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBallot(t, c.approvers...)
			c.change(b)
			got := b.count(c.suspended, c.at)
			if got.Quorum != c.quorum || status(got, "ryan") != c.ryan || got.Rejected {
				t.Errorf("quorum %v, ryan %s, rejected %v: %+v", got.Quorum, status(got, "ryan"), got.Rejected, got.Seats)
			}
		})
	}
}

// A person who signs again within the second in which a new registry came counts.
func TestSignedAgainWithinTheSecond(t *testing.T) {
	b := newBallot(t, "divlead-1", "sec-eng", "ryan")
	old := b.rows[2]
	old.Envelope = b.w.seal("ryan", envelope.TypeApproval, upgrade.Approval{ApproverID: "ryan", ApprovalTs: old.SignedAt, KernelID: kernelID, KeyID: keyID("ryan"),
		ManifestDigest: b.digest, PatchHash: patch, RegistryDigest: envelope.DigestOf([]byte("the registry before")), UpgradeID: upgradeID})
	again := b.rows[2]
	b.rows = append(b.rows[:2], old)
	if b.count(nobody, decided).Quorum {
		t.Fatal("an approval under another registry counts")
	}
	b.rows = append(b.rows, again)
	if c := b.count(nobody, decided); !c.Quorum {
		t.Errorf("the second approval does not count: %+v", c.Seats)
	}
	b.reject("ryan", old.SignedAt)
	b.rows = append(b.rows, again)
	if b.count(nobody, decided).Quorum {
		t.Error("an approval of the same second overrules a rejection")
	}
}

func TestThreeRejections(t *testing.T) {
	b := newBallot(t, "ryan")
	for i, who := range []string{"sec-eng", "tech-lead", "divlead-2"} {
		if b.count(nobody, decided).Rejected {
			t.Fatalf("%d rejections reject", i)
		}
		b.reject(who, decided)
	}
	if !b.count(nobody, decided).Rejected {
		t.Error("three rejections do not reject")
	}
}
