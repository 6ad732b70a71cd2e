package guard

import (
	"bytes"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// What bounds requests and answers.
const (
	maxBody  = upgrade.MaxBundle + 1<<20 // bytes: the largest bundle, and its proof
	maxPlain = 4 << 20                   // bytes of requests without a bundle; a registry document is the longest
	// maxValues bounds the values in one request: parsed, a value of three bytes
	// takes a hundred. A case has a few thousand.
	maxValues = 1 << 18
)

// checkValues refuses what would take far more memory parsed than written.
// Every value but the first of an object or array stands behind a comma.
func checkValues(body []byte) error {
	if n := bytes.Count(body, []byte(",")); n > maxValues {
		return failure.New(failure.PayloadMalformed, "it has %d values, where at most %d are allowed", n, maxValues)
	}
	return nil
}

// bodyLimit is how many bytes a request may have.
func bodyLimit(path string) int64 {
	if path == pathRecord || path == pathRatify {
		return maxBody
	}
	return maxPlain
}

// The paths of the calls. Every call is a POST with a JSON body.
const (
	pathStatus     = "/v1/status"
	pathRegistry   = "/v1/registry"
	pathSuspend    = "/v1/suspend"
	pathDelegate   = "/v1/delegate"
	pathCheckpoint = "/v1/checkpoint"
	pathRecord     = "/v1/record"
	pathRatify     = "/v1/ratification"
	pathRollback   = "/v1/rollback"
	pathOutcome    = "/v1/outcome"
	pathProbe      = "/v1/probe"
	pathRebuild    = "/v1/rebuild"
)

// refusal is every answer but 200: with a class it is final (422, or 400 and
// 413 for a request that is none), without one the guard is unavailable (503).
type refusal struct {
	Class  failure.Class `json:"class"`
	Detail string        `json:"detail"`
}

type empty struct{}

type registryRequest struct {
	Entry keyregistry.SignedDocument `json:"entry"`
}

type envelopeBody struct {
	Envelope envelope.Envelope `json:"envelope"`
}

type delegateRequest struct {
	PublicKey []byte        `json:"publicKey"`
	Instance  string        `json:"instance"`
	NotBefore envelope.Time `json:"notBefore"`
	NotAfter  envelope.Time `json:"notAfter"`
}

type checkpointRequest struct {
	Size        int64    `json:"size"`
	Root        []byte   `json:"root"`
	Consistency [][]byte `json:"consistency"`
}

func (r checkpointRequest) root() (tlog.Hash, error) {
	if len(r.Root) != tlog.HashSize {
		return tlog.Hash{}, failure.New(failure.FieldInvalid, "the root has %d bytes, not %d", len(r.Root), tlog.HashSize)
	}
	return tlog.Hash(r.Root), nil
}

type checkpointAnswer struct {
	Note string `json:"note"`
}

// bundleRequest carries the bundle in canonical form, before the proof.
type bundleRequest struct {
	Bundle upgrade.QuorumBundle `json:"bundle"`
	Proof  workflow.LogProof    `json:"proof"`
}

// check refuses a bundle that is not written as what was parsed of it is
// written: in another layout, with null, or without a required member.
func (r *bundleRequest) check(body []byte) error {
	rest, first := bytes.CutPrefix(body, []byte(`{"bundle":`))
	bundle := r.Bundle.Bytes()
	if len(bundle) > upgrade.MaxBundle {
		return failure.New(failure.PayloadMalformed, "the bundle has %d bytes, where at most %d are allowed", len(bundle), upgrade.MaxBundle)
	}
	if !first || !bytes.HasPrefix(rest, bundle) {
		return failure.New(failure.PayloadNotCanonical, "the bundle does not come first, is not in RFC 8785 form, or lacks a member")
	}
	return nil
}

type rollbackRequest struct {
	Manifest upgrade.Manifest   `json:"manifest"`
	Proof    *workflow.LogProof `json:"proof,omitzero"`
}

type proofRequest struct {
	Proof workflow.LogProof `json:"proof"`
}
