package auditlog

import (
	"bytes"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// What stands in a leaf around its payload, its key and its signature. A leaf
// has one spelling only, so that most need no JSON parser: whole logs are
// verified at the pace of their signatures.
const (
	leafStart   = `{"payload":"`
	leafKey     = `","payloadType":"` + envelope.TypeAuditEvent + `","signatures":[{"keyid":"`
	leafSig     = `","sig":"`
	leafEnd     = `"}]}`
	keyIDDigits = 64
)

// Leaf is the leaf of an event that SignEvent signed: its envelope's Bytes.
func Leaf(env envelope.Envelope) []byte {
	sig := env.Signatures[0]
	leaf := make([]byte, 0, base64.StdEncoding.EncodedLen(len(env.Payload))+aroundPayload)
	leaf = base64.StdEncoding.AppendEncode(append(leaf, leafStart...), env.Payload)
	leaf = append(append(append(leaf, leafKey...), sig.KeyID...), leafSig...)
	return append(base64.StdEncoding.AppendEncode(leaf, sig.Sig), leafEnd...)
}

// ParseLeaf parses a leaf: the canonical bytes of an event's envelope. It does
// not verify the signature; VerifyEvent does.
func ParseLeaf(leaf []byte) (Event, envelope.Envelope, error) {
	var e Event
	if len(leaf) > MaxLeaf {
		return e, envelope.Envelope{}, errTooLong
	}
	env, ok := splitLeaf(leaf)
	if !ok {
		var err error
		if env, err = parseEnvelope(leaf); err != nil {
			return e, env, err
		}
	}
	if err := decodeEvent(env.Payload, &e); err != nil {
		return e, env, err
	}
	if e.KeyID != env.Signatures[0].KeyID {
		return e, env, failure.New(failure.BindingMismatch, "the event names another key than its signature")
	}
	return e, env, e.check()
}

// splitLeaf takes a leaf apart that is spelled as every right one is.
func splitLeaf(leaf []byte) (envelope.Envelope, bool) {
	var env envelope.Envelope
	rest, ok1 := bytes.CutPrefix(leaf, []byte(leafStart))
	payload, rest, ok2 := bytes.Cut(rest, []byte(leafKey))
	key, rest, ok3 := bytes.Cut(rest, []byte(leafSig))
	sig, ok4 := bytes.CutSuffix(rest, []byte(leafEnd))
	if !ok1 || !ok2 || !ok3 || !ok4 || !envelope.IsLowerHex(string(key), keyIDDigits) {
		return env, false
	}
	rawPayload, ok1 := decodeBase64(payload)
	rawSig, ok2 := decodeBase64(sig)
	if !ok1 || !ok2 || len(rawPayload) > envelope.MaxPayload {
		return env, false
	}
	signatures := []envelope.Signature{{KeyID: envelope.KeyID(key), Sig: rawSig}}
	return envelope.Envelope{Payload: rawPayload, PayloadType: envelope.TypeAuditEvent, Signatures: signatures}, true
}

// decodeBase64 is strict: the standard decoder skips line ends.
func decodeBase64(text []byte) ([]byte, bool) {
	raw, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	return raw, err == nil && len(raw) > 0 && base64.StdEncoding.EncodedLen(len(raw)) == len(text)
}

// parseEnvelope is the way of all other envelopes, which names what is wrong.
func parseEnvelope(leaf []byte) (envelope.Envelope, error) {
	env, err := envelope.Parse(leaf)
	if err != nil {
		return env, err
	}
	if string(env.Bytes()) != string(leaf) {
		return env, failure.New(failure.PayloadNotCanonical, "the leaf is not in RFC 8785 form")
	}
	if err := env.Expect(envelope.TypeAuditEvent); err != nil {
		return env, err
	}
	_, err = env.Single()
	return env, err
}

// decodeEvent is envelope.DecodeCanonical in fewer passes: a payload that the
// parsed event is written as, canonically, is canonical, and says nothing else.
// An event is written canonically: its members stand in order, none but data
// has a character that needs an escape, and data sees to itself.
func decodeEvent(payload []byte, e *Event) error {
	if json.Unmarshal(payload, e, json.RejectUnknownMembers(true)) == nil && e.check() == nil {
		again, ok := e.appendTo(make([]byte, 0, len(payload)))
		if !ok {
			again, _ = json.Marshal(e) // where it fails it is no payload
		}
		if bytes.Equal(again, payload) {
			return nil
		}
	}
	*e = Event{}
	return envelope.DecodeCanonical(payload, envelope.MaxPayload, e)
}

// appendTo appends the RFC 8785 form of an event that was parsed, without
// asking what a struct is made of. It does not know names beyond ASCII, which
// RFC 8785 sorts in an order of its own.
func (e *Event) appendTo(b []byte) ([]byte, bool) {
	b = append(append(append(b, `{"actor":"`...), e.Actor...), `","data":{`...)
	for i, name := range slices.Sorted(maps.Keys(e.Data)) {
		if i > 0 {
			b = append(b, ',')
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) {
			return nil, false
		}
		var ok bool
		if b, ok = appendString(b, name); !ok {
			return nil, false
		}
		if b, ok = appendValue(append(b, ':'), e.Data[name]); !ok {
			return nil, false
		}
	}
	b = append(append(append(b, `},"kernelId":"`...), e.KernelID...), `","keyId":"`...)
	b = append(append(append(b, e.KeyID...), `","prevHash":"`...), e.PrevHash.String()...)
	b = strconv.AppendInt(append(b, `","seq":`...), e.Seq, 10)
	b = append(append(append(b, `,"time":"`...), e.Time.String()...), `","type":"`...)
	b = append(append(b, e.Type...), '"')
	if e.UpgradeID != "" {
		b = append(append(append(b, `,"upgradeId":"`...), e.UpgradeID...), '"')
	}
	return append(b, '}'), true
}

func appendString(b []byte, s string) ([]byte, bool) {
	b, err := jsontext.AppendQuote(b, s) // as RFC 8785 has it
	return b, err == nil
}

func appendValue(b []byte, value any) ([]byte, bool) {
	switch v := value.(type) {
	case string:
		return appendString(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10), true
	case bool:
		return strconv.AppendBool(b, v), true
	case []string:
		b = append(b, '[')
		for i, s := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var ok bool
			if b, ok = appendString(b, s); !ok {
				return nil, false
			}
		}
		return append(b, ']'), true
	}
	return nil, false
}
