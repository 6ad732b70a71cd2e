package browser_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/webauthn"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// next is the document that follows the one in force, edited, unsigned.
func (w *world) next(t *testing.T, edit func(*keyregistry.Document)) (*keyregistry.Document, keyregistry.SignedDocument) {
	t.Helper()
	raw, err := envelope.Canonical(w.doc)
	check(t, err)
	doc, err := keyregistry.ParseDocument(raw)
	check(t, err)
	previous := envelope.DigestOf(raw)
	doc.Version, doc.Previous, doc.IssuedAt = doc.Version+1, &previous, envelope.TimeOf(w.now())
	edit(doc)
	return doc, registrytest.Entry(doc)
}

// adopt puts a next version into force, signed by three.
func (w *world) adopt(t *testing.T, edit func(*keyregistry.Document)) {
	t.Helper()
	doc, entry := w.next(t, edit)
	for _, name := range []string{"divlead-1", "divlead-2", "tech-lead"} {
		entry.Statement.Signatures = append(entry.Statement.Signatures, w.keys[name].sign(t, entry.Statement))
	}
	check(t, w.engine.AcceptRegistry(t.Context(), entry))
	w.doc = doc
}

func rename(doc *keyregistry.Document) {
	doc.CI[0].Name = "CI of " + strings.ToLower(doc.CI[0].Name)
}

// A security key is enrolled in the browser, put into the next version, and
// signs that version there, which proves that it is held; so does the old one.
func TestEnrolAKeyAndSignTheRegistryInTheBrowser(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	p.open("/registry/key")
	p.click(`form[data-enrol-key] button.main`)
	p.sees("Your file is ready.")
	p.shot("registry-key-ready")
	file := p.download(`[data-enrol-key] [data-file]`)
	env, err := envelope.Parse([]byte(file))
	check(t, err)
	var enrolment struct {
		ID   envelope.ID      `json:"id"`
		Key  keyregistry.Key  `json:"key"`
		Kind keyregistry.Kind `json:"kind"`
		Name string           `json:"name"`
		Role keyregistry.Role `json:"role"`
	}
	check(t, envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &enrolment))
	if enrolment.ID != "ryan" || enrolment.Role != keyregistry.SuperAdmin || enrolment.Key.WebAuthn == nil {
		t.Fatalf("the file says %+v", enrolment)
	}
	doc, entry := w.next(t, func(doc *keyregistry.Document) {
		for i := range doc.Approvers {
			if a := &doc.Approvers[i]; a.ID == enrolment.ID {
				a.Keys = append(a.Keys, enrolment.Key)
				slices.SortFunc(a.Keys, func(x, y keyregistry.Key) int { return strings.Compare(string(x.KeyID), string(y.KeyID)) })
			}
		}
	})
	entry.Statement.Signatures = append(entry.Statement.Signatures, w.keys["divlead-1"].sign(t, entry.Statement), w.keys["tech-lead"].sign(t, entry.Statement))
	text, err := envelope.Canonical(entry)
	check(t, err)
	p.open("/registry/sign")
	eval[any](p, `void (document.querySelector("[data-review] [name=text]").value = `+strconv.Quote(string(text))+`)`)
	p.click(`form[data-review] button`)
	p.sees("Test ryan (ryan, superadmin) gets key")
	p.sees("Signed by divlead-1, tech-lead. One approver of the version in force must sign still.")
	p.shot("registry-review")
	p.click(`form[data-sign-registry] button`)
	p.sees("Another key of yours may sign as well")
	p.click(`form[data-sign-registry] button`)
	p.waits(`document.querySelector("[data-sign-registry] [data-says]").textContent === ""`)
	signed := p.download(`[data-changes] [data-file]`)
	check(t, envelope.DecodeCanonical([]byte(signed), 1<<20, &entry))
	check(t, w.engine.AcceptRegistry(t.Context(), entry))
	w.doc = doc
	p.open("/registry")
	p.sees("version 2")

	// One that does not follow what is in force is not shown as if it did.
	p.open("/registry/sign")
	eval[any](p, `void (document.querySelector("[data-review] [name=text]").value = `+strconv.Quote(string(text))+`)`)
	p.click(`form[data-review] button`)
	p.sees("does not follow the registry in force")
	eval[any](p, `void (document.querySelector("[data-review] [name=text]").value = "{}")`)
	p.click(`form[data-review] button`)
	p.sees("Its document is not valid")
}

func TestASyncedKeyIsNotEnrolled(t *testing.T) {
	w := newWorld(t)
	p := w.sit(t, browser(t), "ryan")
	p.enrol("approver")
	command(p, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: p.token})
	command(p, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportUsb, HasResidentKey: true, HasUserVerification: true,
		IsUserVerified: true, AutomaticPresenceSimulation: true, DefaultBackupEligibility: true, DefaultBackupState: true,
	}})
	p.open("/registry/key")
	p.click(`form[data-enrol-key] button.main`)
	p.sees("This key is synced between devices")
}
