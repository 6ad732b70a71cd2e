package envelope_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/filekey"
)

// textOf is a canonical object of exactly n bytes.
func textOf(n int) string { return `{"a":"` + strings.Repeat("x", n-8) + `"}` }

// Each size is accepted at its limit and refused a byte over it.
func TestSizes(t *testing.T) {
	var v struct {
		A string `json:"a"`
	}
	if err := envelope.DecodeCanonical([]byte(textOf(envelope.MaxPayload)), envelope.MaxPayload, &v); err != nil {
		t.Error(err)
	}
	if err := envelope.DecodeCanonical([]byte(textOf(envelope.MaxPayload+1)), envelope.MaxPayload, &v); failure.ClassOf(err) != failure.PayloadMalformed {
		t.Errorf("a byte over: %v", err)
	}
	if err := envelope.CheckForeign([]byte(textOf(envelope.MaxPayload))); err != nil {
		t.Error(err)
	}
	if err := envelope.CheckForeign([]byte(textOf(envelope.MaxPayload + 1))); failure.ClassOf(err) != failure.PayloadMalformed {
		t.Errorf("foreign, a byte over: %v", err)
	}
	env := envelope.Envelope{Payload: make([]byte, envelope.MaxPayload), PayloadType: "t", Signatures: []envelope.Signature{{KeyID: keyOf(0), Sig: []byte{1}}}}
	if err := env.Check(); err != nil {
		t.Error(err)
	}
	env.Payload = append(env.Payload, 0)
	if err := env.Check(); failure.ClassOf(err) != failure.EnvelopeMalformed {
		t.Errorf("payload a byte over: %v", err)
	}
}

func keyOf(i int) envelope.KeyID { return envelope.KeyID(fmt.Sprintf("%064x", i)) }

func TestWireAndSignatureCounts(t *testing.T) {
	env := envelope.Envelope{Payload: []byte("{}"), PayloadType: "t"}
	for i := range envelope.MaxSignatures {
		env.Signatures = append(env.Signatures, envelope.Signature{KeyID: keyOf(i), Sig: []byte{1}})
	}
	wire := string(env.Bytes())
	padded := wire + strings.Repeat(" ", envelope.MaxWire-len(wire))
	if got, err := envelope.Parse([]byte(padded)); err != nil || len(got.Signatures) != envelope.MaxSignatures {
		t.Errorf("at both limits: %v", err)
	}
	if _, err := envelope.Parse([]byte(padded + " ")); failure.ClassOf(err) != failure.EnvelopeMalformed {
		t.Errorf("a byte over: %v", err)
	}
	env.Signatures = append(env.Signatures, envelope.Signature{KeyID: keyOf(99), Sig: []byte{1}})
	if _, err := envelope.Parse(env.Bytes()); failure.ClassOf(err) != failure.EnvelopeMalformed {
		t.Errorf("65 signatures: %v", err)
	}
	if _, err := env.Single(); failure.ClassOf(err) != failure.EnvelopeMalformed {
		t.Errorf("not single: %v", err)
	}
}

// What cannot be opened is never sealed.
func TestSealRefusesTooMuch(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := filekey.New(private, signer.ECDSAP256SHA256)
	if err != nil {
		t.Fatal(err)
	}
	record := map[string]string{"a": strings.Repeat("x", envelope.MaxPayload-8)}
	if _, err := envelope.Seal(context.Background(), s, "t", record); err != nil {
		t.Error(err)
	}
	record["a"] += "x"
	if _, err := envelope.Seal(context.Background(), s, "t", record); failure.ClassOf(err) != failure.PayloadMalformed {
		t.Errorf("a byte over: %v", err)
	}
}

func TestNesting(t *testing.T) {
	deep := func(n int) []byte {
		return []byte(strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1))
	}
	var v map[string]any
	if err := envelope.DecodeCanonical(deep(envelope.MaxNesting), envelope.MaxPayload, &v); err != nil {
		t.Error(err)
	}
	for _, n := range []int{envelope.MaxNesting + 1, 9_999} {
		if err := envelope.DecodeCanonical(deep(n), envelope.MaxPayload, &v); failure.ClassOf(err) != failure.PayloadMalformed {
			t.Errorf("nested %d deep: %v", n, err)
		}
	}
}
