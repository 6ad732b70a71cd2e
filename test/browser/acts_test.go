package browser_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/commandpad"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// What others do while a person looks, and how it ended.

func (w *world) invite(t *testing.T, person, role string) string {
	t.Helper()
	link, err := commandpad.Invite(t.Context(), w.store, w.origin, envelope.ID(person), role, w.now().Add(time.Hour))
	check(t, err)
	return link
}

// call is a call of the gateway by a cookie, with headers as a browser sets them.
func (w *world) call(t *testing.T, cookie, method, path, body string, headers map[string]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.origin+path, strings.NewReader(body))
	check(t, err)
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	check(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	check(t, err)
	return resp.StatusCode
}

func (w *world) view(t *testing.T, id envelope.UUID) workflow.View {
	t.Helper()
	v, err := w.engine.Upgrade(t.Context(), id)
	check(t, err)
	return v
}

// approvals is how many seats have approved.
func (w *world) approvals(t *testing.T, id envelope.UUID) (n int) {
	t.Helper()
	for _, seat := range w.view(t, id).Seats {
		if seat.Status == upgrade.SeatApproved {
			n++
		}
	}
	return n
}

func (w *world) events(t *testing.T, id envelope.UUID, kind string) (n int) {
	t.Helper()
	for _, e := range w.view(t, id).Events {
		if e.Event.Type == kind {
			n++
		}
	}
	return n
}

func (w *world) until(t *testing.T, id envelope.UUID, state workflow.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for w.view(t, id).Upgrade.State != state {
		select {
		case <-ctx.Done():
			t.Fatalf("upgrade %s is %s, not %s", id, w.view(t, id).Upgrade.State, state)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// test reports a result as a CI system does.
func (w *world) test(t *testing.T, patch envelope.Digest, name, result string) {
	t.Helper()
	payload := []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"site","digest":{"sha256":"` + strings.TrimPrefix(patch.String(), "sha256:") +
		`"}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{"result":"` + result + `","configuration":[{"name":"` + name + `"}],"url":"https://ci.example.org/runs/17"}}`)
	env := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeInToto}
	sig, err := envelope.Sign(t.Context(), w.signers["ci"], env)
	check(t, err)
	env.Signatures = []envelope.Signature{sig}
	_, err = w.engine.Submit(t.Context(), workflow.KindTestResult, env)
	check(t, err)
}

// approveAll approves as three people do whose browsers do not matter here.
func (w *world) approveAll(t *testing.T, m upgrade.Manifest, digest envelope.Digest, names ...string) {
	t.Helper()
	reg, err := w.engine.Registry(t.Context())
	check(t, err)
	for _, name := range names {
		key := w.keys[name]
		record := upgrade.Approval{KernelID: kernelID, UpgradeID: m.UpgradeID, ApproverID: envelope.ID(name), ApprovalTs: envelope.TimeOf(w.now()),
			ManifestDigest: digest, PatchHash: m.PatchHash, RegistryDigest: reg.Digest(), KeyID: envelope.KeyID(key.public.KeyID())}
		payload, err := envelope.Canonical(record)
		check(t, err)
		env := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeApproval}
		env.Signatures = []envelope.Signature{key.sign(t, env)}
		_, err = w.engine.Submit(t.Context(), workflow.KindApproval, env)
		check(t, err)
	}
}

// through takes a change all the way.
func (w *world) through(t *testing.T, c change) upgrade.Manifest {
	t.Helper()
	m, digest := w.propose(t, c)
	w.approveAll(t, m, digest, "ryan", "sec-eng", "divlead-1")
	w.until(t, m.UpgradeID, workflow.StateCompleted)
	return m
}

// verifies says whether the person's devices verify their user.
func (p *person) verifies(yes bool) {
	p.t.Helper()
	command(p, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: p.token, IsUserVerified: yes})
}

func containsWords(text, words string) bool {
	return strings.Contains(strings.ToLower(text), words)
}

type signingRequest struct {
	ID        string `json:"id"`
	UpgradeID string `json:"upgradeId"`
	Decision  string `json:"decision"`
	Notes     string `json:"notes"`
}

// signingRequest is what a person asked their own machine to sign last.
func (w *world) signingRequest(t *testing.T, cookie string) signingRequest {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+"/v1/signing-requests", nil)
	check(t, err)
	req.Header.Set("Cookie", cookie)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	var list struct {
		Requests []signingRequest `json:"requests"`
	}
	check(t, json.UnmarshalRead(resp.Body, &list))
	if len(list.Requests) == 0 {
		t.Fatal("nothing was asked")
	}
	return list.Requests[len(list.Requests)-1]
}
