package envelope

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/failure"
)

const (
	// MaxPayload is the size limit of a payload and of foreign JSON, in bytes.
	MaxPayload = 64 << 10
	// MaxNesting is the deepest nesting; the outermost object counts as 1.
	MaxNesting = 16
)

// Canonical is the RFC 8785 form of v, which must be made of the types of this
// protocol: structs, strings, integers within MaxInt, bools and text forms.
func Canonical(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	value := jsontext.Value(data)
	if err := value.Canonicalize(); err != nil {
		return nil, err
	}
	return value, nil
}

// DecodeCanonical parses data into v and is strict, by PROTOCOL section 2: at
// most limit bytes, equal to its own RFC 8785 form, no unknown or missing
// members, no null, no number but Int. The types of v carry the primitive
// forms; what they cannot say (ranges, texts) is the caller's to check.
// Classes: payload_malformed, payload_not_canonical, field_invalid.
func DecodeCanonical(data []byte, limit int, v any) error {
	if len(data) > limit {
		return failure.New(failure.PayloadMalformed, "%d bytes, where at most %d are allowed", len(data), limit)
	}
	canonical := jsontext.Value(bytes.Clone(data))
	if err := canonical.Canonicalize(); err != nil {
		return failure.New(failure.PayloadMalformed, "not strict JSON: %w", err)
	}
	if !bytes.Equal(canonical, data) {
		return failure.New(failure.PayloadNotCanonical, "the bytes differ from their RFC 8785 form")
	}
	if err := checkTokens(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		return misfit(err)
	}
	return checkRoundTrip(data, v)
}

// misfit says why JSON does not fit a type, without the names of Go's types.
// An error that has a class is left as it is.
func misfit(err error) error {
	var e *json.SemanticError
	switch {
	case failure.ClassOf(err) != "" || !errors.As(err, &e):
		return failure.As(failure.PayloadMalformed, err)
	case errors.Is(err, json.ErrUnknownName):
		return failure.New(failure.PayloadMalformed, "unknown member %.200q", e.JSONPointer)
	}
	return failure.New(failure.PayloadMalformed, "a value of another kind is expected at %.200q", cmp.Or(e.JSONPointer, "/"))
}

// checkTokens refuses what no type can: a number of canonical JSON that is no
// Int (negative, or over MaxInt), null, which a raw value would let through, and
// nesting deeper than MaxNesting.
func checkTokens(canonical []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(canonical))
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failure.New(failure.PayloadMalformed, "not strict JSON: %w", err)
		}
		if d.StackDepth() > MaxNesting {
			return failure.New(failure.PayloadMalformed, "nested deeper than %d", MaxNesting)
		}
		if token.Kind() == 'n' {
			return failure.New(failure.PayloadMalformed, "null, where a member without a value is left out")
		}
		if token.Kind() != '0' {
			continue
		}
		if n, err := strconv.ParseUint(token.String(), 10, 64); err != nil || n > MaxInt {
			return failure.New(failure.FieldInvalid, "%.40q is not a whole number from 0 to 2^53-1", token.String())
		}
	}
}

// checkRoundTrip refuses what the typed value does not say in the same bytes:
// a missing member, null, an optional member that is written empty or false.
// So nothing that was signed is ever outside of what was parsed.
func checkRoundTrip(canonical []byte, v any) error {
	again, err := json.Marshal(v)
	if err != nil {
		return failure.New(failure.PayloadMalformed, "cannot be written again: %w", err)
	}
	if bytes.Equal(again, canonical) {
		return nil
	}
	// The order of a struct's fields is not the order of RFC 8785.
	value := jsontext.Value(again)
	if err := value.Canonicalize(); err != nil || !bytes.Equal(value, canonical) {
		return failure.New(failure.PayloadMalformed, "a required member is missing, or an optional one is null, empty or false")
	}
	return nil
}

// CheckForeign checks JSON that others define (clientDataJSON, in-toto test
// results) as PROTOCOL section 2 asks: UTF-8, no duplicate names, nesting and
// size. The failure class is payload_malformed.
func CheckForeign(data []byte) error {
	if len(data) > MaxPayload {
		return failure.New(failure.PayloadMalformed, "%d bytes, where at most %d are allowed", len(data), MaxPayload)
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	for values := 0; ; {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) && values == 1 {
			return nil
		}
		if err != nil {
			return failure.New(failure.PayloadMalformed, "not strict JSON: %w", err)
		}
		if d.StackDepth() > MaxNesting {
			return failure.New(failure.PayloadMalformed, "nested deeper than %d", MaxNesting)
		}
		kind := token.Kind()
		if d.StackDepth() == 0 {
			values++
		}
		if values > 1 || d.StackDepth() == 0 && kind != '}' {
			return failure.New(failure.PayloadMalformed, "not one JSON object")
		}
	}
}

// DecodeForeign checks data with CheckForeign, then takes from it the members
// that v has, by their exact names. Whether they were present is the caller's
// to check.
func DecodeForeign(data []byte, v any) error {
	if err := CheckForeign(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return misfit(err)
	}
	return nil
}
