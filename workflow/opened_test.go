package workflow

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/filekey"
)

func TestMemoryKnowsABodyByAllItsBytes(t *testing.T) {
	key, err := filekey.New(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.Seal(context.Background(), key, envelope.TypeRejection, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	var m memory
	for range 2 {
		o, err := m.open(KindRejection, env.Bytes())
		if err != nil || !bytes.Equal(o.envelope.Bytes(), env.Bytes()) {
			t.Fatalf("opened: %v", err)
		}
	}
	if len(m.young) != 1 {
		t.Fatalf("%d are remembered", len(m.young))
	}
	// The same payload, and so the same record, with another signature.
	other := env
	other.Signatures = []envelope.Signature{{KeyID: env.Signatures[0].KeyID, Sig: make([]byte, 64)}}
	if o, err := m.open(KindRejection, other.Bytes()); err != nil || !bytes.Equal(o.envelope.Signatures[0].Sig, make([]byte, 64)) {
		t.Fatalf("another signature: %v", err)
	}
	// What is no manifest is none because it was opened as something else.
	if _, err := m.open(KindManifest, env.Bytes()); err == nil {
		t.Fatal("a rejection was opened as a manifest")
	}
	if o, err := m.open(KindApproval, env.Bytes()); err != nil || o.approval != nil {
		t.Fatalf("a rejection as an approval: %v, %v", o.approval, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	body := make([]byte, 100_000)
	key := func() memoryKey { return memoryKey{KindManifest, envelope.DigestOf(body)} }
	first := key()
	for i := range 200 {
		body[0] = byte(i)
		m.put(KindManifest, body, opened{})
	}
	if held := (len(m.young) + len(m.old)) * len(body); held > 2*rememberedBytes || held < rememberedBytes-len(body) {
		t.Fatalf("%d bytes are held", held)
	}
	if _, known := m.young[first]; known {
		t.Fatal("the first is still known")
	}
	if _, known := m.young[key()]; !known {
		t.Fatal("the last is not known")
	}
}
