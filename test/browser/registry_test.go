package browser_test

import (
	"strings"
	"testing"

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
