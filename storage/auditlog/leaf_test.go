package auditlog_test

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// Events are written in fewer passes than RFC 8785 asks of any value, and leaves
// without a JSON writer; the bytes are the same.
func TestEventsAreWrittenCanonically(t *testing.T) {
	key := newKey(t)
	base := event(t)
	rapid.Check(t, func(t *rapid.T) {
		e := base
		text := rapid.StringN(0, 8, -1) // all fits the 1,900 bytes that an event key signs
		e.Data = auditlog.Data(rapid.MapOfN(text, rapid.OneOf(
			text.AsAny(), rapid.Bool().AsAny(), rapid.Int64Range(0, envelope.MaxInt).AsAny(), rapid.SliceOfN(text, 0, 3).AsAny(),
		), 0, 4).Draw(t, "data"))
		env, err := auditlog.SealEvent(context.Background(), key, e)
		if err != nil {
			t.Fatal(err)
		}
		e.KeyID = env.Signatures[0].KeyID
		if want, err := envelope.Canonical(e); err != nil || !bytes.Equal(env.Payload, want) {
			t.Fatalf("written as %q, not %q: %v", env.Payload, want, err)
		}
		if again, ok := e.AppendTo(nil); ok && !bytes.Equal(again, env.Payload) {
			t.Fatalf("read as %q, not %q", again, env.Payload)
		}
		leaf := auditlog.Leaf(env)
		if !bytes.Equal(leaf, env.Bytes()) {
			t.Fatalf("the leaf is %q, not %q", leaf, env.Bytes())
		}
		if _, _, err := auditlog.ParseLeaf(leaf); err != nil {
			t.Fatal(err)
		}
	})
}

// What events really say takes the short way.
func TestShortWay(t *testing.T) {
	e := event(t)
	e.Data = auditlog.Data{"recordDigest": "sha256:00", "n": int64(7), "ok": true, "list": []string{"a", "b\n"}, "empty": []string{}, "a\"b": ""}
	env, err := auditlog.SealEvent(context.Background(), newKey(t), e)
	if err != nil {
		t.Fatal(err)
	}
	e.KeyID = env.Signatures[0].KeyID
	if again, ok := e.AppendTo(nil); !ok || !bytes.Equal(again, env.Payload) {
		t.Errorf("read as %q, not %q", again, env.Payload)
	}
}
