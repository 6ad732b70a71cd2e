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
	own := map[string]string{"Origin": w.origin, "Sec-Fetch-Site": "same-origin"}
	id := string(m.UpgradeID)
	pages := []string{"/", "/upgrades/" + id, "/upgrades/" + id + "/approve", "/upgrades/" + id + "/emergency", "/new", "/registry", "/registry/key", "/registry/sign", "/audit", "/system"}
	for _, path := range append(pages, "/rollback?of="+id) {
		if status := w.call(t, "", "GET", path, "", nil); status != http.StatusSeeOther {
			t.Errorf("GET %s without a session answers %d", path, status)
		}
	}
	for _, path := range []string{"/v1/upgrades", "/v1/events", "/v1/upgrades/" + id} {
		if status := w.call(t, "", "GET", path, "", nil); status != http.StatusUnauthorized {
			t.Errorf("GET %s without a session answers %d", path, status)
		}
	}
	for _, c := range []struct {
		role                     string
		approve, open, put, list int
	}{
		{"auditor", 403, 403, 403, 200},
		{"ci", 403, 403, 200, 200},
		{"requestor", 403, 200, 200, 200},
		{"approver", 201, 200, 200, 200},
		{"operator", 200, 200, 200, 200}, // carries what is signed; it is known by now
		{"", 403, 403, 403, 200},
		{"made-up", 403, 403, 403, 200},
	} {
		cookie := w.session(t, "ryan", c.role)
		for _, path := range pages {
			if status := w.call(t, cookie, "GET", path, "", nil); status != http.StatusOK {
				t.Errorf("%q: GET %s answers %d", c.role, path, status)
			}
		}
		for _, try := range []struct {
			method, path, body string
			want               int
		}{
			{"POST", "/v1/records", approval, c.approve}, {"POST", "/v1/upgrades/" + id + "/approval-request", "", c.open},
			{"PUT", "/v1/artifacts", "bytes", c.put}, {"GET", "/v1/upgrades", "", c.list},
		} {
			headers := map[string]string{"Origin": own["Origin"], "Sec-Fetch-Site": own["Sec-Fetch-Site"]}
			if try.method == "PUT" {
				headers["Content-Type"] = "application/octet-stream"
			}
			if status := w.call(t, cookie, try.method, try.path, try.body, headers); status != try.want {
				t.Errorf("%q: %s %s answers %d, not %d", c.role, try.method, try.path, status, try.want)
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
