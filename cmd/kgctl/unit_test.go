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

	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
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

func TestExitCodes(t *testing.T) {
	for code, errs := range map[int][]error{
		exitOK:               {nil},
		exitFailure:          {errors.New("x")},
		exitCancelled:        {fmt.Errorf("x: %w", context.Canceled)},
		exitUsage:            {fmt.Errorf("x: %w", usagef("y"))},
		exitPolicyDenied:     {failure.New(failure.PolicyDenied, "x")},
		exitQuorumIncomplete: {failure.New(failure.QuorumNotMet, "x"), failure.New(failure.RegistryThresholdNotMet, "x")},
		exitVerification:     {failure.New(failure.SignatureInvalid, "x")},
		exitHardware:         {fmt.Errorf("x: %w", signer.ErrPIN), hardwareError{errors.New("x")}},
		exitRecordChanged:    {failure.New(failure.BaseRevisionMoved, "x")},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != code {
				t.Errorf("%v: exit code %d, want %d", err, got, code)
			}
		}
	}
}
