package keyregistry_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// What verified once is remembered as it was, and nothing that differs from it.
func TestRemembering(t *testing.T) {
	at, err := envelope.ParseTime("2026-01-02T03:04:05Z")
	if err != nil {
		t.Fatal(err)
	}
	f := registrytest.New(at)
	reg := f.Registry.Remembering(2)
	seal := func(who string, n int) (keyregistry.Entry, envelope.Envelope) {
		t.Helper()
		env, err := envelope.Seal(context.Background(), f.Signers[who], envelope.TypeApproval, map[string]any{"n": n})
		if err != nil {
			t.Fatal(err)
		}
		entry, err := reg.Lookup(env.Signatures[0].KeyID)
		if err != nil {
			t.Fatal(err)
		}
		return entry, env
	}
	for n := range 7 { // more than it remembers
		for _, who := range []string{"ryan", "sec-eng", "divlead-1"} {
			entry, env := seal(who, n)
			for range 3 {
				if err := reg.Verify(entry, env); err != nil {
					t.Fatalf("%s %d: %v", who, n, err)
				}
			}
			for name, change := range map[string]func(*envelope.Envelope){
				"payload":   func(e *envelope.Envelope) { e.Payload = append(bytes.Clone(e.Payload), ' ') },
				"type":      func(e *envelope.Envelope) { e.PayloadType = envelope.TypeRejection },
				"signature": func(e *envelope.Envelope) { e.Signatures[0].Sig = append(bytes.Clone(e.Signatures[0].Sig), 0) },
				"key id":    func(e *envelope.Envelope) { e.Signatures[0].KeyID = f.Registry.Document().CI[0].Keys[0].KeyID },
				"assertion": func(e *envelope.Envelope) { e.Signatures[0].WebAuthn = new(envelope.WebAuthn) },
			} {
				other := env
				other.Signatures = []envelope.Signature{env.Signatures[0]}
				change(&other)
				for range 2 { // a refusal is not remembered as anything else
					if err := reg.Verify(entry, other); err == nil {
						t.Errorf("%s's record with another %s is taken", who, name)
					}
				}
			}
			if other, _ := seal("tech-lead", n); reg.Verify(other, env) == nil {
				t.Error("it is taken under another key")
			}
		}
	}
}

func TestRememberingAtOnce(t *testing.T) {
	at, err := envelope.ParseTime("2026-01-02T03:04:05Z")
	if err != nil {
		t.Fatal(err)
	}
	f := registrytest.New(at)
	reg := f.Registry.Remembering(8)
	var group sync.WaitGroup
	for n := range 16 {
		group.Go(func() {
			env, err := envelope.Seal(context.Background(), f.Signers["sec-eng"], envelope.TypeApproval, map[string]any{"n": fmt.Sprint(n % 4)})
			if err != nil {
				t.Error(err)
				return
			}
			entry, err := reg.Lookup(env.Signatures[0].KeyID)
			if err == nil {
				err = reg.Verify(entry, env)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
