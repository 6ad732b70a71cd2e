package upgrade

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// The types that in-toto fixes.
const (
	StatementType     = "https://in-toto.io/Statement/v1"
	TestResultType    = "https://in-toto.io/attestation/test-result/v0.1"
	AppliedRecordType = "urn:kernelgate:applied-upgrade:v1"
	RatificationType  = "urn:kernelgate:ratification:v1"
	testPassed        = "PASSED"
	testWarned        = "WARNED"
	testFailed        = "FAILED"
)

// TestResult is what a CI system says of one test of one patch.
type TestResult struct {
	Name   string
	Result string // PASSED, WARNED or FAILED
	Patch  envelope.Digest
}

// Passed reports whether the result lets an upgrade go on.
func (r *TestResult) Passed() bool { return r.Result == testPassed || r.Result == testWarned }

// foreignStatement is as much of an in-toto test result as counts. Pointers
// tell a missing member from an empty one.
type foreignStatement struct {
	Type          *string `json:"_type"`
	PredicateType *string `json:"predicateType"`
	Subject       []struct {
		Name   jsontext.Value `json:"name"` // a string only where it names the test
		Digest struct {
			SHA256 *string `json:"sha256"`
		} `json:"digest"`
	} `json:"subject"`
	Predicate struct {
		Result        *string          `json:"result"`
		Configuration []jsontext.Value `json:"configuration"`
	} `json:"predicate"`
}

// VerifyTestResult verifies an in-toto test result about the patch at time t:
// by a ci key, inside its validity.
func VerifyTestResult(reg *keyregistry.Registry, env envelope.Envelope, patch envelope.Digest, t envelope.Time) (*TestResult, error) {
	result, err := openTestResult(env)
	if err != nil {
		return nil, err
	}
	if result.Patch != patch {
		return nil, failure.New(failure.BindingMismatch, "the test result is about another patch, %s", result.Patch)
	}
	entry, err := reg.Lookup(env.Signatures[0].KeyID)
	if err != nil {
		return nil, err
	}
	_, err = reg.VerifySigner(env, entry.ID, t, keyregistry.KindCI)
	return result, err
}

func openTestResult(env envelope.Envelope) (*TestResult, error) {
	if err := env.Expect(envelope.TypeInToto); err != nil {
		return nil, err
	}
	if _, err := env.Single(); err != nil {
		return nil, err
	}
	var s foreignStatement
	if err := envelope.DecodeForeign(env.Payload, &s); err != nil {
		return nil, err
	}
	if !is(s.Type, StatementType) || !is(s.PredicateType, TestResultType) {
		return nil, failure.New(failure.FieldInvalid, "not an in-toto Statement v1 of a test result v0.1")
	}
	if len(s.Subject) != 1 || s.Subject[0].Digest.SHA256 == nil {
		return nil, failure.New(failure.FieldInvalid, "a test result has exactly one subject, with a sha256")
	}
	patch, err := envelope.ParseDigest("sha256:" + *s.Subject[0].Digest.SHA256)
	if err != nil {
		return nil, err
	}
	if !is(s.Predicate.Result, testPassed) && !is(s.Predicate.Result, testWarned) && !is(s.Predicate.Result, testFailed) {
		return nil, failure.New(failure.FieldInvalid, "predicate.result is none of PASSED, WARNED, FAILED")
	}
	name, err := testName(&s)
	if err != nil {
		return nil, err
	}
	return &TestResult{Name: name, Result: *s.Predicate.Result, Patch: patch}, nil
}

func is(s *string, want string) bool { return s != nil && *s == want }

// testName is the first configuration's name; without a configuration, the subject's.
func testName(s *foreignStatement) (string, error) {
	raw := s.Subject[0].Name
	if len(s.Predicate.Configuration) > 0 {
		var first struct {
			Name jsontext.Value `json:"name"`
		}
		if err := json.Unmarshal(s.Predicate.Configuration[0], &first); err != nil {
			return "", failure.As(failure.PayloadMalformed, err)
		}
		raw = first.Name
	}
	name := ""
	if raw.Kind() != '"' || json.Unmarshal(raw, &name) != nil || name == "" {
		return "", failure.New(failure.FieldInvalid, "the test result names no test")
	}
	return name, nil
}
