package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// marker stands in all that people wrote.
const marker = "xyzzy"

func said(where string) string { return marker + " in " + where }

// writer submits what people wrote.
type writer struct {
	*world
	t *testing.T
	c *client.Client
}

func (w *writer) submit(who, payloadType string, record any) (envelope.Envelope, error) {
	w.t.Helper()
	env, err := envelope.Seal(context.Background(), w.people[who], payloadType, record)
	must(w.t, err)
	_, err = w.c.Submit(context.Background(), env)
	return env, err
}

func (w *writer) must(who, payloadType string, record any) envelope.Envelope {
	w.t.Helper()
	env, err := w.submit(who, payloadType, record)
	must(w.t, err)
	return env
}

// about are the members that every record about an upgrade has.
func (w *writer) about(m upgrade.Manifest, digest envelope.Digest, who string, more map[string]any) map[string]any {
	out := map[string]any{"kernelId": "kernel-test", "keyId": w.people[who].Public().KeyID(), "manifestDigest": digest.String(), "registryDigest": w.root.String(), "upgradeId": m.UpgradeID}
	maps.Copy(out, more)
	return out
}

func now() string { return envelope.TimeOf(time.Now()).String() }

// propose is an upgrade of which every text is the marker.
func (w *writer) propose(base upgrade.Revision, tests ...string) (upgrade.Manifest, envelope.Digest) {
	w.t.Helper()
	patch, err := w.c.PutArtifact(w.t.Context(), strings.NewReader(tarball(w.t, said("a page for "+strings.Join(tests, ", ")))))
	must(w.t, err)
	m, _ := w.manifest(w.t, patch)
	m.BaseRevision, m.Rationale, m.Preconditions.Tests = base, said("the rationale"), tests
	m.Impact = upgrade.Impact{Components: []string{said("a component")}, Downtime: said("the downtime")}
	m.Target.ManifestID = said("the target")
	env := w.must("tech-lead", envelope.TypeManifest, m)
	_, err = w.c.RequestApprovals(w.t.Context(), m.UpgradeID)
	must(w.t, err)
	return m, env.PayloadDigest()
}

func (w *writer) approval(m upgrade.Manifest, digest envelope.Digest, who string) map[string]any {
	return w.about(m, digest, who, map[string]any{"approverId": who, "approvalTs": now(), "notes": said("notes"), "patchHash": m.PatchHash.String()})
}

// What people write stands in their signed records alone: no event and no line
// of the gateway's or the guard's log has any of it, be it taken or refused.
func TestWhatPeopleWriteStandsInTheirRecordsAlone(t *testing.T) {
	house := newWorld(t, "log: {level: debug}\n")
	house.mustInit(t)
	p, c := house.serve(t, house.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	w := &writer{house, t, c}

	// One that is tested, asked about and applied, with what is refused on the way.
	m, digest := w.propose(upgrade.None, said("a test"))
	w.must("ryan", envelope.TypeTestRequest, w.about(m, digest, "ryan", map[string]any{"approverId": "ryan", "requestTs": now(), "notes": said("notes"), "tests": []string{said("a wish")}}))
	w.must("ci", envelope.TypeInToto, map[string]any{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
		"subject":   []any{map[string]any{"name": said("a subject"), "digest": map[string]any{"sha256": strings.TrimPrefix(m.PatchHash.String(), "sha256:")}}},
		"predicate": map[string]any{"result": "PASSED", "configuration": []any{map[string]any{"name": said("a test"), "note": said("foreign JSON")}}}})
	forged, err := envelope.Seal(t.Context(), w.people["ryan"], envelope.TypeApproval, w.approval(m, digest, "ryan"))
	must(t, err)
	forged.Signatures[0].Sig = slices.Concat(forged.Signatures[0].Sig[:20], []byte{forged.Signatures[0].Sig[20] ^ 1}, forged.Signatures[0].Sig[21:])
	if _, err := c.Submit(t.Context(), forged); err == nil {
		t.Error("a forged approval is taken")
	}
	unknown := w.approval(m, digest, "ryan")
	unknown[marker] = said("an unknown member")
	if _, err := w.submit("ryan", envelope.TypeApproval, unknown); err == nil {
		t.Error("an unknown member is taken")
	}
	for _, body := range []string{said("no JSON"), `{"` + marker + `": "` + marker + `"}`} {
		post(t, p.url(t)+"/v1/records", body)
	}
	for _, who := range []string{"ryan", "sec-eng", "divlead-1"} {
		w.must(who, envelope.TypeApproval, w.approval(m, digest, who))
	}
	w.waitState(t, c, m.UpgradeID, "completed")

	// An emergency, one that is rejected, and a key that is suspended.
	live := upgrade.RevisionOf(m.PatchHash)
	fire, digest := w.propose(live, said("a test"), said("another"))
	w.must("ryan", envelope.TypeEmergencyTrigger, w.about(fire, digest, "ryan", map[string]any{"triggeredBy": "ryan", "triggeredAt": now(), "reason": said("the emergency"), "patchHash": fire.PatchHash.String()}))
	w.waitState(t, c, fire.UpgradeID, "emergency_applied")
	no, digest := w.propose(upgrade.RevisionOf(fire.PatchHash))
	for _, who := range []string{"ryan", "sec-eng", "divlead-1"} {
		w.must(who, envelope.TypeRejection, w.about(no, digest, who, map[string]any{"approverId": who, "rejectionTs": now(), "reason": said("a rejection")}))
	}
	w.must("ryan", envelope.TypeKeySuspension, map[string]any{"kernelId": "kernel-test", "keyId": w.people["ryan"].Public().KeyID(), "suspendedKeyId": w.people["divlead-2"].Public().KeyID(),
		"issuedBy": "ryan", "suspendedAt": now(), "registryDigest": w.root.String(), "reason": said("a suspension")})

	types := w.checkEvents()
	for _, want := range []string{auditlog.UpgradeCreated, auditlog.UpgradeTestsReported, auditlog.UpgradeTestsRequested, auditlog.ApprovalSubmitted, auditlog.ApprovalInvalid, auditlog.ApprovalRejected,
		auditlog.UpgradeCompleted, auditlog.UpgradeEmergencyApplied, auditlog.UpgradeRejected, auditlog.RegistryKeySuspended} {
		if !types[want] {
			t.Errorf("no %s came about: nothing is shown of it", want)
		}
	}
	detail, err := c.Upgrade(t.Context(), m.UpgradeID)
	must(t, err)
	first, err := envelope.Parse(detail.Records[0].Body)
	if err != nil || !bytes.Contains(first.Payload, []byte(said("the rationale"))) {
		t.Errorf("the record does not have what was written: %v", err)
	}
	p.signal(15)
	p.wait(t)
	for line := range strings.Lines(p.text()) {
		if strings.Contains(strings.ToLower(line), marker) {
			t.Errorf("the log tells %s", line)
		}
	}
	if len(p.entries("the gateway serves")) != 1 {
		t.Error("the log was not read")
	}
}

// checkEvents looks through the whole log, and returns the types that it has.
func (w *writer) checkEvents() map[string]bool {
	w.t.Helper()
	types := map[string]bool{}
	for seq := int64(0); ; {
		page, err := w.c.Events(w.t.Context(), seq, 200)
		must(w.t, err)
		for _, e := range page.Events {
			event, env, err := auditlog.ParseLeaf(e.Leaf)
			must(w.t, err)
			if types[event.Type] = true; bytes.Contains(bytes.ToLower(env.Payload), []byte(marker)) {
				w.t.Errorf("event %d tells %s", e.Seq, env.Payload)
			}
			seq = e.Seq + 1
		}
		if page.Next == nil {
			return types
		}
	}
}

func post(t *testing.T, url, body string) {
	t.Helper()
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	must(t, err)
	_, err = io.Copy(io.Discard, answer.Body)
	must(t, err)
	must(t, answer.Body.Close())
}
