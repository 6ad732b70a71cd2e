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
		e.Data = auditlog.Data(rapid.MapOf(rapid.String(), rapid.OneOf(
			rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Int64Range(0, envelope.MaxInt).AsAny(), rapid.SliceOf(rapid.String()).AsAny(),
		)).Draw(t, "data"))
		env, err := auditlog.SealEvent(context.Background(), key, e)
		if err != nil {
			t.Fatal(err)
		}
		e.KeyID = env.Signatures[0].KeyID
		if want, err := envelope.Canonical(e); err != nil || !bytes.Equal(env.Payload, want) {
			t.Fatalf("written as %q, not %q: %v", env.Payload, want, err)
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
