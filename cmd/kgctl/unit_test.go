package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// The words, read back as a number, are the first 66 bits of the hash.
func TestFingerprint(t *testing.T) {
	for i := range 64 {
		m, p := envelope.DigestOf([]byte{byte(i)}), envelope.DigestOf([]byte{byte(i), 1})
		sum := sha256.Sum256([]byte(m.String() + "\n" + p.String()))
		want := new(big.Int).Rsh(new(big.Int).SetBytes(sum[:]), 256-66)
		got := new(big.Int)
		for _, word := range strings.Fields(fingerprint(m, p)) {
			got.Lsh(got, 11).Or(got, big.NewInt(int64(slices.Index(wordlists.English, word))))
		}
		if got.Cmp(want) != 0 {
			t.Errorf("%d: %x, want %x", i, got, want)
		}
	}
}

// A module that hangs is given up, and its failure is the hardware's.
func TestModuleThatHangs(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	err := guarded(10*time.Millisecond, func() error { <-hang; return nil })
	if exitCode(err) != exitHardware || !errors.Is(err, signer.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := guarded(time.Minute, func() error { return signer.ErrPIN }); !errors.Is(err, signer.ErrPIN) {
		t.Errorf("got %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	for code, errs := range map[int][]error{
		exitOK:               {nil},
		exitFailure:          {errors.New("x")},
		exitCancelled:        {fmt.Errorf("x: %w", context.Canceled), errCancelled},
		exitUsage:            {fmt.Errorf("x: %w", usagef("y"))},
		exitPolicyDenied:     {failure.New(failure.PolicyDenied, "x"), &client.Error{Status: 409, Code: "policy_denied"}},
		exitQuorumIncomplete: {failure.New(failure.QuorumNotMet, "x"), failure.New(failure.RegistryThresholdNotMet, "x")},
		exitVerification:     {failure.New(failure.SignatureInvalid, "x"), &client.Error{Status: 422, Code: "signature_invalid"}},
		exitHardware:         {fmt.Errorf("x: %w", signer.ErrPIN), hardwareError{errors.New("x")}},
		exitRecordChanged:    {failure.New(failure.BaseRevisionMoved, "x"), fmt.Errorf("%w: x", errChanged), &client.Error{Status: 409, Code: "conflict"}},
		exitNotAuthenticated: {&client.Error{Status: 401, Code: "unauthenticated"}, &client.Error{Status: 403, Code: "forbidden"}},
		exitUnavailable:      {fmt.Errorf("x: %w", client.ErrUnavailable), &client.Error{Status: 503, Code: "unavailable"}, context.DeadlineExceeded},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != code {
				t.Errorf("%v: exit code %d, want %d", err, got, code)
			}
		}
	}
}
