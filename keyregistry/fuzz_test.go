package keyregistry_test

import (
	"bytes"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// FuzzParseDocument: what parses writes again to the same bytes.
func FuzzParseDocument(f *testing.F) {
	f.Add(registrytest.New(t0).Entries[0].Document)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := keyregistry.ParseDocument(data)
		if err != nil {
			return
		}
		again, err := envelope.Canonical(d)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("parsed, but writes as %q, %v", again, err)
		}
	})
}
