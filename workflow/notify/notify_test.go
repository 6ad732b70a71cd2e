package notify_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/notify"
)

func hook(t *testing.T, in *inbox, name string) notify.Receiver {
	return notify.Receiver{Name: name, Webhook: &notify.Webhook{URL: in.URL + "/hook", SecretFile: secretFile(t), CAFile: in.ca}}
}

func config(receivers ...notify.Receiver) notify.Config {
	return notify.Config{Link: "https://gate.example/", Allow: []string{"127.0.0.1"}, Receivers: receivers}
}

func TestWebhook(t *testing.T) {
	in := newInbox(t, true)
	s := newStore(auditlog.KeyDelegated, auditlog.UpgradePendingApproval, auditlog.UpgradeCanaryFailed)
	run(t, config(hook(t, in, "ops")), s)
	eventually(t, "two messages", func() bool { return len(in.requests()) == 2 && s.cursor("notify/ops") == 3 })
	first := in.requests()[0]
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(first.header.Get("webhook-id") + "." + first.header.Get("webhook-timestamp") + "." + first.body))
	if got := first.header.Get("webhook-signature"); got != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %q", got)
	}
	if got := first.header.Get("Content-Type"); !strings.HasPrefix(got, "application/cloudevents+json") {
		t.Errorf("content type %q", got)
	}
	var event struct {
		SpecVersion, ID, Source, Type, Time, Subject, DataContentType string
		Data                                                          struct {
			Text, Link, Priority string
			People               []string
		}
	}
	if err := json.Unmarshal([]byte(first.body), &event, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if event.SpecVersion != "1.0" || event.ID != "k/1" || event.ID != first.header.Get("webhook-id") || event.Source != "kernelgate/k" ||
		event.Type != "com.kernelgate.upgrade.pending_approval" || event.Subject != string(upgradeID) || event.Time != start.String() {
		t.Errorf("event %+v", event)
	}
	if len(event.Data.People) != 5 || event.Data.Priority != "normal" {
		t.Errorf("to %v, %s", event.Data.People, event.Data.Priority)
	}
	want := "The upgrade of web waits for your approval.\nUpgrade " + string(upgradeID) + " (code), proposed by ops.\nBy sec-eng, 2026-06-01T00:00:00Z.\n" +
		"Until 2026-06-14T00:00:00Z.\nhttps://gate.example/upgrades/" + string(upgradeID) + "\n"
	if event.Data.Text != want {
		t.Errorf("text %q, want %q", event.Data.Text, want)
	}
	if !strings.Contains(in.requests()[1].body, `"priority":"high"`) {
		t.Error("a failed canary is of high priority")
	}
}

func TestSlack(t *testing.T) {
	in := newInbox(t, true)
	s := newStore(auditlog.UpgradeApplied, auditlog.UpgradeRejected)
	run(t, config(notify.Receiver{Name: "chat", Events: []string{auditlog.UpgradeRejected}, Slack: &notify.Slack{URLFile: file(t, in.URL+"/T0/B0/secret-token"), CAFile: in.ca}}), s)
	eventually(t, "one message", func() bool { return s.cursor("notify/chat") == 2 })
	got := in.requests()
	var body map[string]string
	if len(got) != 1 || json.Unmarshal([]byte(got[0].body), &body) != nil || len(body) != 1 || !strings.HasPrefix(body["text"], "The upgrade of web was rejected.") {
		t.Errorf("%+v", got)
	}
}

func TestDeadReceiverSlowsNobody(t *testing.T) {
	dead, alive := newInbox(t, false), newInbox(t, false)
	dead.Close()
	s := newStore()
	for range 250 { // more than a batch
		s.add(auditlog.UpgradeApplied, start)
	}
	r := run(t, config(hook(t, dead, "dead"), hook(t, alive, "alive")), s)
	eventually(t, "the other has all", func() bool { return s.cursor("notify/alive") == 250 })
	if n := len(alive.requests()); n != 250 {
		t.Errorf("%d messages", n)
	}
	if s.cursor("notify/dead") != 0 {
		t.Error("the dead receiver's cursor moved")
	}
	eventually(t, "it is tried again", func() bool { return strings.Count(r.log.String(), "sent again") > 2 })
}

func TestRetryAndRestart(t *testing.T) {
	in := newInbox(t, false)
	in.answer(http.StatusServiceUnavailable)
	s := newStore(auditlog.UpgradeApplied, auditlog.UpgradeCompleted)
	first := run(t, config(hook(t, in, "ops")), s)
	eventually(t, "three attempts", func() bool { return len(in.requests()) >= 3 })
	for _, r := range in.requests() {
		if r.header.Get("webhook-id") != "k/0" {
			t.Fatal("a later message overtook one that is not delivered")
		}
	}
	first.stop()
	if s.cursor("notify/ops") != 0 {
		t.Fatal("the cursor moved without a delivery")
	}
	in.answer(http.StatusOK)
	second := run(t, config(hook(t, in, "ops")), s)
	eventually(t, "all delivered", func() bool { return s.cursor("notify/ops") == 2 })
	second.stop()
	n := len(in.requests())
	s.add(auditlog.UpgradeRollback, start)
	run(t, config(hook(t, in, "ops")), s)
	eventually(t, "the next", func() bool { return s.cursor("notify/ops") == 3 })
	if got := in.requests(); len(got) != n+1 || got[n].header.Get("webhook-id") != "k/2" {
		t.Errorf("a restart repeats or leaves out: %d messages, then %d", n, len(got))
	}
}

func TestGivenUp(t *testing.T) {
	in := newInbox(t, false)
	in.answer(http.StatusUnprocessableEntity)
	s := newStore()
	s.add(auditlog.UpgradeApplied, start.Add(-86401)) // too old when first seen
	s.add(auditlog.UpgradeApplied, start)
	r := run(t, config(hook(t, in, "ops")), s)
	eventually(t, "both behind", func() bool { return s.cursor("notify/ops") == 2 })
	if got := in.requests(); len(got) != 1 || !strings.Contains(r.log.String(), "given up") {
		t.Errorf("%d attempts; log %s", len(got), r.log)
	}
}

func TestExpiryWarningOnce(t *testing.T) {
	in := newInbox(t, false)
	s := newStore(auditlog.KeyDelegated)
	s.upgrade.ExpiresAt = start.Add(86401)
	s.upgrade.CreatedAt = start.Add(-20 * 86400)
	first := run(t, config(hook(t, in, "ops")), s)
	eventually(t, "the log is read", func() bool { return s.cursor("notify/ops") == 1 })
	first.stop()
	if len(in.requests()) != 0 {
		t.Fatal("warned more than a day before")
	}
	s.upgrade.ExpiresAt = start.Add(86400)
	second := run(t, config(hook(t, in, "ops")), s)
	eventually(t, "the warning is kept", func() bool { return s.cursor("notify/ops/expiry/"+string(upgradeID)) == 1 })
	second.stop()
	third := run(t, config(hook(t, in, "ops")), s)
	s.add(auditlog.UpgradeApplied, start)
	eventually(t, "a later event", func() bool { return s.cursor("notify/ops") == 2 })
	third.stop()
	warnings := 0
	for _, r := range in.requests() {
		if strings.Contains(r.body, notify.ExpiryWarning) {
			warnings++
			if !strings.Contains(r.body, `"people":["divlead-2","sec-eng","tech-lead"]`) {
				t.Errorf("warned: %s", r.body)
			}
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings", warnings)
	}
}

func TestPrivateAddressesAndRedirects(t *testing.T) {
	in := newInbox(t, false)
	s := newStore(auditlog.UpgradeApplied)
	c := config(hook(t, in, "ops"))
	c.Allow = []string{"other.example"}
	r := run(t, c, s)
	eventually(t, "it is refused", func() bool { return strings.Contains(r.log.String(), "private or special") })
	r.stop()
	if len(in.requests()) != 0 {
		t.Fatal("a private address was reached")
	}
	// What counts is where a name leads at the moment of connecting, and allow is of
	// the very name.
	local := hook(t, in, "local")
	local.Webhook.URL = strings.Replace(local.Webhook.URL, "127.0.0.1", "localhost", 1)
	c = config(local)
	c.Allow = []string{"127.0.0.1"}
	r = run(t, c, s)
	eventually(t, "a name of a private address is refused", func() bool { return strings.Contains(r.log.String(), "private or special") })
	r.stop()
	if len(in.requests()) != 0 {
		t.Fatal("a private address was reached by a name")
	}
	c = config(hook(t, in, "ops"))
	c.Allow = []string{"127.0.0.1"}
	in.answer(http.StatusFound)
	r = run(t, c, s)
	eventually(t, "the redirect counts as refused", func() bool { return strings.Contains(r.log.String(), "status 302") })
	if s.cursor("notify/ops") != 0 {
		t.Error("a redirect counts as delivered")
	}
}

func TestPublic(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "127.0.0.1": false, "::1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "::": false, "::ffff:127.0.0.1": false, "::ffff:8.8.8.8": true, "64:ff9b::7f00:1": false,
		"fe80::1": false, "fd00::1": false, "ff02::1": false, "224.0.0.1": false, "255.255.255.255": false, "2002:7f00:1::": false, "198.18.0.1": false, "::7f00:1": false,
		"::ffff:0:127.0.0.1": false, "2001:0:7f00:1::": false, "2001:20::1": false, "3fff::1": false, "5f00::1": false, "fec0::1": false, "2a00:1450::1": true,
	} {
		if notify.Public(ip) != want {
			t.Errorf("%s: public is %v", ip, !want)
		}
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	in := newInbox(t, false)
	in.answer(http.StatusForbidden)
	dead := newInbox(t, false)
	dead.Close()
	s := newStore(auditlog.UpgradeApplied)
	r := run(t, config(
		notify.Receiver{Name: "chat", Slack: &notify.Slack{URLFile: file(t, in.URL+"/T0/B0/secret-token")}},
		notify.Receiver{Name: "gone", Slack: &notify.Slack{URLFile: file(t, dead.URL+"/T0/B0/secret-token")}},
		hook(t, in, "ops")), s)
	eventually(t, "each failed twice", func() bool { return strings.Count(r.log.String(), `"attempt":2`) >= 3 })
	for _, part := range []string{"secret-token", base64.StdEncoding.EncodeToString(secret), "whsec_"} {
		if strings.Contains(r.log.String(), part) {
			t.Errorf("the log has %q: %s", part, r.log)
		}
	}
	_, err := notify.New(config(notify.Receiver{Name: "chat", Slack: &notify.Slack{URLFile: file(t, "ftp://h/secret-token")}}), s, seats, nil)
	if err == nil || strings.Contains(err.Error(), "secret-token") {
		t.Errorf("error %v", err)
	}
}

func TestConfigRefuses(t *testing.T) {
	mail := func(spoil func(*notify.SMTP)) notify.Config {
		m := &notify.SMTP{Address: "mail.example:587", From: "gate@gate.example"}
		spoil(m)
		return notify.Config{Receivers: []notify.Receiver{{Name: "mail", SMTP: m}}}
	}
	good := notify.Receiver{Name: "ops", Webhook: &notify.Webhook{URL: "https://h", SecretFile: secretFile(t)}}
	for name, c := range map[string]notify.Config{
		"two of a name":      {Receivers: []notify.Receiver{good, good}},
		"no kind":            {Receivers: []notify.Receiver{{Name: "x"}}},
		"a name with space":  {Receivers: []notify.Receiver{{Name: "x y", Webhook: good.Webhook}}},
		"unknown event":      {Receivers: []notify.Receiver{{Name: "x", Webhook: good.Webhook, Events: []string{"audit.key_delegated"}}}},
		"ftp":                {Receivers: []notify.Receiver{{Name: "x", Webhook: &notify.Webhook{URL: "ftp://h", SecretFile: secretFile(t)}}}},
		"weak secret":        {Receivers: []notify.Receiver{{Name: "x", Webhook: &notify.Webhook{URL: "https://h", SecretFile: file(t, "whsec_AAAA")}}}},
		"no secret":          {Receivers: []notify.Receiver{{Name: "x", Webhook: &notify.Webhook{URL: "https://h"}}}},
		"address with break": {People: map[string]string{"ryan": "a@b\r\nBcc: c@d"}},
		"person in capitals": {People: map[string]string{"Ryan": "a@b"}},
		"password, no TLS":   mail(func(m *notify.SMTP) { m.User, m.PasswordFile, m.TLS = "u", "f", "none" }),
		"unknown tls":        mail(func(m *notify.SMTP) { m.TLS = "maybe" }),
		"no port":            mail(func(m *notify.SMTP) { m.Address = "mail.example" }),
		"from nobody":        mail(func(m *notify.SMTP) { m.From = "Gate <gate@gate.example>" }),
	} {
		if _, err := notify.New(c, newStore(), seats, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
