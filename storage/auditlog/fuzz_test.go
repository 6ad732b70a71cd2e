package auditlog_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// FuzzParseLeaf: a leaf that parses writes again to the same bytes, so that
// one event has one leaf, and its typed value says all that was signed.
func FuzzParseLeaf(f *testing.F) {
	e := event(f)
	env, err := auditlog.SealEvent(context.Background(), newKey(f), e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env.Bytes())
	f.Fuzz(func(t *testing.T, leaf []byte) {
		e, env, err := auditlog.ParseLeaf(leaf)
		if err != nil {
			return
		}
		if !bytes.Equal(env.Bytes(), leaf) {
			t.Fatalf("%q writes as %q", leaf, env.Bytes())
		}
		if again, err := envelope.Canonical(e); err != nil || !bytes.Equal(again, env.Payload) {
			t.Fatalf("%q writes as %q, %v", env.Payload, again, err)
		}
		var strict auditlog.Event
		if err := envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &strict); err != nil {
			t.Fatalf("%q is an event's payload, yet not strict: %v", env.Payload, err)
		}
		if parsed, err := envelope.Parse(leaf); err != nil || parsed.PayloadDigest() != env.PayloadDigest() {
			t.Fatalf("%q is a leaf and no envelope: %v", leaf, err)
		}
	})
}

// FuzzOpenCheckpoint: no note opens but the very text that was signed, with
// any lines of others after it.
func FuzzOpenCheckpoint(f *testing.F) {
	text, entry := newCheckpoint(f)
	want, err := auditlog.OpenCheckpoint(text, kernelID, []keyregistry.Key{entry})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(newWitness(f, "a.example/w").cosign(text, 7))
	f.Fuzz(func(t *testing.T, note string) {
		if c, err := auditlog.OpenCheckpoint(note, kernelID, []keyregistry.Key{entry}); err == nil && c != want {
			t.Fatalf("%q opens as %v", note, c)
		}
		c, err := auditlog.ReadCheckpoint(note)
		if err != nil {
			return
		}
		if again, err := auditlog.ReadCheckpoint(c.String() + "\n"); err != nil || again != c {
			t.Fatalf("%q reads as %v, which does not read again: %v", note, c, err)
		}
	})
}
