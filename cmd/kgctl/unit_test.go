package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/changes"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The words, read back as a number, are the first 66 bits of the hash.
func TestFingerprint(t *testing.T) {
	for i := range 64 {
		m, p := envelope.DigestOf([]byte{byte(i)}), envelope.DigestOf([]byte{byte(i), 1})
		sum := sha256.Sum256([]byte(m.String() + "\n" + p.String()))
		want := new(big.Int).Rsh(new(big.Int).SetBytes(sum[:]), 256-66)
		got := new(big.Int)
		for _, word := range strings.Fields(fingerprint(m, p)) {
			got.Lsh(got, 11).Or(got, big.NewInt(int64(slices.Index(wordlists.English, word))))
		}
		if got.Cmp(want) != 0 {
			t.Errorf("%d: %x, want %x", i, got, want)
		}
	}
}

// An approval that is too old is shown as stale, with what to do; once a quorum
// has decided, those who made it are shown, whatever the time is.
func TestApprovalsThatDoNotCount(t *testing.T) {
	signed := envelope.TimeOf(time.Now())
	f := registrytest.New(signed.Add(-60))
	seal := func(who, payloadType string, v any) envelope.Envelope {
		env, err := envelope.Seal(t.Context(), f.Signers[who], payloadType, v)
		must(t, err)
		return env
	}
	key := func(who string) envelope.KeyID { return envelope.KeyID(f.Signers[who].Public().KeyID()) }
	m := upgrade.Manifest{BaseRevision: upgrade.None, Impact: upgrade.Impact{Components: []string{"web"}, Downtime: "none"}, KernelID: registrytest.KernelID,
		KeyID: key("ops"), Preconditions: upgrade.Preconditions{Approvals: 3, Tests: []string{}}, ProposedBy: "ops", Rationale: "x",
		Target: upgrade.Target{Name: "web", ManifestID: "site"}, Timestamp: signed, Type: upgrade.TypeCode, UpgradeID: "0190a5e0-0000-7000-8000-000000000001"}
	manifest := seal("ops", envelope.TypeManifest, m)
	record := func(kind string, body []byte) client.Record { return client.Record{Kind: kind, Body: body} }
	records := []client.Record{record(workflow.KindManifest, manifest.Bytes())}
	bundle := upgrade.QuorumBundle{Manifest: manifest, TestResults: []envelope.Envelope{}, Quorum: upgrade.QuorumInfo{DecidedAt: signed, KernelID: m.KernelID,
		ManifestDigest: manifest.PayloadDigest(), RegistryDigest: f.Registry.Digest(), UpgradeID: m.UpgradeID}}
	for _, who := range []string{"divlead-1", "ryan", "sec-eng"} {
		env := seal(who, envelope.TypeApproval, upgrade.Approval{ApprovalTs: signed, ApproverID: envelope.ID(who), KernelID: m.KernelID, KeyID: key(who),
			ManifestDigest: manifest.PayloadDigest(), PatchHash: m.PatchHash, RegistryDigest: f.Registry.Digest(), UpgradeID: m.UpgradeID})
		records = append(records, record(workflow.KindApproval, env.Bytes()))
		bundle.Approvals, bundle.Quorum.Approvers = append(bundle.Approvals, env), append(bundle.Quorum.Approvers, envelope.ID(who))
	}
	late := func() time.Time { return signed.Std().Add(15 * 24 * time.Hour) }
	seats := func(state client.State, records []client.Record) map[envelope.ID]upgrade.Seat {
		r := &reading{manifest: &m, digest: manifest.PayloadDigest(), tests: map[string]upgrade.TestResult{}, detail: client.UpgradeDetail{Records: records}}
		r.detail.Upgrade.State = state
		must(t, (&app{now: late}).judge(&session{regs: keyregistry.Chain{f.Registry}}, r))
		found := map[envelope.ID]upgrade.Seat{}
		for _, seat := range r.count.Seats {
			found[seat.Person] = seat
		}
		return found
	}
	waiting := seats(client.PendingApproval, records)
	if s := waiting["ryan"]; s.Status != upgrade.SeatStale || !strings.Contains(s.Reason, "must be given again") || waiting["tech-lead"].Status != upgrade.SeatWaiting {
		t.Errorf("pending: %+v", waiting)
	}
	ended := seats(client.Completed, append(records, record(workflow.KindQuorumBundle, bundle.Bytes())))
	if s := ended["ryan"]; s.Status != upgrade.SeatApproved || ended["tech-lead"].Status != upgrade.SeatWaiting {
		t.Errorf("ended: %+v", ended)
	}
}

func TestExitCodes(t *testing.T) {
	for code, errs := range map[int][]error{
		exitOK:               {nil},
		exitFailure:          {errors.New("x")},
		exitCancelled:        {fmt.Errorf("x: %w", context.Canceled), errCancelled},
		exitUsage:            {fmt.Errorf("x: %w", usagef("y"))},
		exitPolicyDenied:     {failure.New(failure.PolicyDenied, "x"), &client.Error{Status: 409, Code: "policy_denied"}},
		exitQuorumIncomplete: {failure.New(failure.QuorumNotMet, "x"), failure.New(failure.RegistryThresholdNotMet, "x")},
		exitVerification:     {failure.New(failure.SignatureInvalid, "x"), &client.Error{Status: 422, Code: "signature_invalid"}},
		exitHardware:         {fmt.Errorf("x: %w", signer.ErrPIN), hardwareError{errors.New("x")}},
		exitRecordChanged:    {failure.New(failure.BaseRevisionMoved, "x"), fmt.Errorf("%w: x", errChanged), &client.Error{Status: 409, Code: "conflict"}},
		exitNotAuthenticated: {&client.Error{Status: 401, Code: "unauthenticated"}, &client.Error{Status: 403, Code: "forbidden"}},
		exitUnavailable:      {fmt.Errorf("x: %w", client.ErrUnavailable), &client.Error{Status: 503, Code: "unavailable"}, context.DeadlineExceeded},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != code {
				t.Errorf("%v: exit code %d, want %d", err, got, code)
			}
		}
	}
}

// What hides in a text, turns it round or moves the cursor is written out where
// somebody is about to sign.
func TestTerminalShowsWhatHides(t *testing.T) {
	for text, want := range map[string]string{
		indented("two\nlines"):                                        "two\n             | lines",
		indented("pay\u200Bpal\r\x1b[2J"):                             "pay[U+200B]pal[U+000D][U+001B][2J",
		foreign("one\nline\tonly \u202Eok"):                           "one line only [U+202E]ok",
		lineTexts([]changes.Line{{Mark: '+', Text: "a\rb\ufeff"}})[0]: "+a[U+000D]b[U+FEFF]",
	} {
		if text != want {
			t.Errorf("%q, not %q", text, want)
		}
	}
}
