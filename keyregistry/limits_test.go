package keyregistry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// A document may have exactly 1 MiB: retired keys make it that large, and
// their holders' names even out the rest.
func TestDocumentAtItsLimit(t *testing.T) {
	doc := new(keyregistry.Document)
	if err := envelope.DecodeCanonical(registrytest.New(t0).Entries[0].Document, keyregistry.MaxDocument, doc); err != nil {
		t.Fatal(err)
	}
	add := func(holder envelope.ID) int {
		doc.Retired = append(doc.Retired, keyregistry.RetiredKey{Holder: holder, KeyID: envelope.KeyID(fmt.Sprintf("%064x", len(doc.Retired)))})
		return len(canonical(t, doc))
	}
	add("h")
	before := add("h")
	each := add("h") - before // with a holder of one letter
	left := keyregistry.MaxDocument - before - each
	for range left/each - 1 {
		doc.Retired = append(doc.Retired, keyregistry.RetiredKey{Holder: "h", KeyID: envelope.KeyID(fmt.Sprintf("%064x", len(doc.Retired)))})
	}
	rest := keyregistry.MaxDocument - len(canonical(t, doc))
	for i := 0; rest > 0; i++ { // holders have up to 63 letters
		n := min(rest, 62)
		doc.Retired[i].Holder += envelope.ID(strings.Repeat("h", n))
		rest -= n
	}
	data := canonical(t, doc)
	if len(data) != keyregistry.MaxDocument {
		t.Fatalf("%d bytes", len(data))
	}
	if _, err := keyregistry.ParseDocument(data); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	doc.Retired[100].Holder += "x"
	if _, err := keyregistry.ParseDocument(canonical(t, doc)); failure.ClassOf(err) != failure.PayloadMalformed {
		t.Errorf("a byte over: %v", err)
	}
}

func canonical(t *testing.T, doc *keyregistry.Document) []byte {
	t.Helper()
	data, err := envelope.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
