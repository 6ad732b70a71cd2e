package browser_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// session is the cookie of somebody who is signed in.
func (w *world) session(t *testing.T, person, role string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"person": person, "role": role})
	check(t, err)
	text, hash := account.NewSecret()
	check(t, w.store.ChangeAccount(t.Context(), envelope.ID(person), "", func(a *account.Account, _ bool) error {
		a.Role, a.Passkeys = role, []byte("[]")
		return nil
	}))
	check(t, w.store.PutSecret(t.Context(), account.Session, hash, envelope.ID(person), body, w.now().Add(time.Hour)))
	return "kernelgate-session=" + text
}

// What the pages hide, the server refuses: each role, by its session.
func TestRolesAreTheServersToEnforce(t *testing.T) {
	w := newWorld(t)
	m, digest := w.propose(t, change{rationale: "A page", page: "1", base: upgrade.None, components: []string{"web"}})
	reg, err := w.engine.Registry(t.Context())
	check(t, err)
	key := w.keys["ryan"]
	payload, err := envelope.Canonical(upgrade.Approval{KernelID: kernelID, UpgradeID: m.UpgradeID, ApproverID: "ryan", ApprovalTs: envelope.TimeOf(w.now()),
		ManifestDigest: digest, PatchHash: m.PatchHash, RegistryDigest: reg.Digest(), KeyID: envelope.KeyID(key.public.KeyID())})
	check(t, err)
	env := envelope.Envelope{Payload: payload, PayloadType: envelope.TypeApproval}
	env.Signatures = []envelope.Signature{key.sign(t, env)}
	approval := string(env.Bytes())
	own := map[string]string{"Origin": w.origin, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
	id := string(m.UpgradeID)
	pages := []string{"/", "/upgrades/" + id, "/upgrades/" + id + "/approve", "/upgrades/" + id + "/emergency", "/new", "/rollback?of=" + id, "/registry", "/registry/key", "/registry/sign", "/audit", "/system"}
	for _, path := range pages {
		if status := w.call(t, "", "GET", path, "", nil); status != http.StatusSeeOther {
			t.Errorf("GET %s without a session answers %d", path, status)
		}
	}
	// Every route of the API, and whom it lets in; what it then answers to a call
	// that makes no sense is another test's.
	order := []string{"requestor", "approver", "ci", "operator", "auditor", "", "made-up"}
	for _, c := range []struct {
		method, path, body string
		may                [4]bool // requestor, approver, ci, operator; nobody else
		all                bool    // everybody reads it
	}{
		{"GET", "/v1/upgrades", "", [4]bool{}, true}, {"GET", "/v1/upgrades/" + id, "", [4]bool{}, true}, {"GET", "/v1/upgrades/" + id + "/events", "", [4]bool{}, true},
		{"GET", "/v1/upgrades/" + id + "/bundle", "", [4]bool{}, true}, {"GET", "/v1/events", "", [4]bool{}, true}, {"GET", "/v1/checkpoint", "", [4]bool{}, true},
		{"GET", "/v1/targets/web", "", [4]bool{}, true}, {"GET", "/v1/registry", "", [4]bool{}, true}, {"GET", "/v1/artifacts/" + m.PatchHash.String(), "", [4]bool{}, true},
		{"POST", "/v1/policy/preview", `{"target":{"name":"web"}}`, [4]bool{true, true, false, true}, false},
		{"POST", "/v1/upgrades/" + id + "/approval-request", "", [4]bool{true, true, false, true}, false},
		{"PUT", "/v1/artifacts", "bytes", [4]bool{true, true, true, true}, false},
		{"POST", "/v1/registry", `{}`, [4]bool{false, true, false, true}, false},
		{"POST", "/v1/records", approval, [4]bool{false, true, false, true}, false},
	} {
		if status := w.call(t, "", c.method, c.path, c.body, own); status != http.StatusUnauthorized {
			t.Errorf("%s %s without a session answers %d", c.method, c.path, status)
		}
		for i, role := range order {
			may := c.all || i < len(c.may) && c.may[i]
			status := w.call(t, w.session(t, "ryan", role), c.method, c.path, c.body, own)
			if status == http.StatusUnauthorized || status >= 500 || (status != http.StatusForbidden) != may {
				t.Errorf("%q: %s %s answers %d, may it %t", role, c.method, c.path, status, may)
			}
		}
	}
	for _, role := range order {
		cookie := w.session(t, "ryan", role)
		for _, path := range pages {
			if status := w.call(t, cookie, "GET", path, "", nil); status != http.StatusOK {
				t.Errorf("%q: GET %s answers %d", role, path, status)
			}
		}
	}
	if n := w.approvals(t, m.UpgradeID); n != 1 {
		t.Fatalf("%d approvals", n)
	}
	// An account that is closed has no sessions.
	cookie := w.session(t, "gone", "auditor")
	check(t, w.store.DropAccount(t.Context(), "gone"))
	if status := w.call(t, cookie, "GET", "/audit", "", nil); status != http.StatusSeeOther {
		t.Errorf("the session of a closed account answers %d", status)
	}
}
