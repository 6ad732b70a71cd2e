package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// The exit codes of every command. Scripts rely on them; they never change.
const (
	exitOK               = 0
	exitFailure          = 1
	exitCancelled        = 2
	exitUsage            = 3
	exitNotAuthenticated = 4
	exitPolicyDenied     = 5
	exitQuorumIncomplete = 6
	exitVerification     = 7
	exitHardware         = 8
	exitRecordChanged    = 9
	exitUnavailable      = 10
)

const exitHelp = `Exit codes: 0 ok, 1 failure, 2 cancelled, 3 usage, 4 not authenticated,
5 policy denied, 6 quorum incomplete, 7 verification failed, 8 hardware,
9 record changed, 10 unavailable.`

// usageError is a command line that cannot be obeyed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// hardwareError is what a token said outside of package signer.
type hardwareError struct{ err error }

func (e hardwareError) Error() string { return e.err.Error() }
func (e hardwareError) Unwrap() error { return e.err }

// exitCode is the one translation from error to exit code.
func exitCode(err error) int {
	var usage usageError
	var hardware hardwareError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitCancelled
	case errors.As(err, &hardware), isHardware(err):
		return exitHardware
	case errors.Is(err, errChanged):
		return exitRecordChanged
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable
	}
	class := failure.ClassOf(err)
	var refused *client.Error
	if class == "" && errors.As(err, &refused) {
		if code, known := refusedCode(refused); known {
			return code
		}
		class = refused.Class()
	}
	switch class {
	case "":
		return exitFailure
	case failure.PolicyDenied:
		return exitPolicyDenied
	case failure.QuorumNotMet, failure.RegistryThresholdNotMet:
		return exitQuorumIncomplete
	case failure.BaseRevisionMoved:
		return exitRecordChanged
	}
	return exitVerification
}

// errChanged: what was shown is no longer so, or no longer open.
var errChanged = errors.New("the record has changed")

// errCancelled: the person said no.
var errCancelled = fmt.Errorf("nothing was signed: %w", context.Canceled)

// refusedCode is the exit code of a gateway's own refusal, by no failure class.
func refusedCode(e *client.Error) (code int, known bool) {
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return exitNotAuthenticated, true
	case e.Status >= http.StatusBadGateway:
		return exitUnavailable, true
	case e.Code == "conflict":
		return exitRecordChanged, true
	}
	return 0, false
}

func isHardware(err error) bool {
	for _, known := range []error{signer.ErrUnavailable, signer.ErrBusy, signer.ErrPIN, signer.ErrKey, signer.ErrMessageTooLong, signer.ErrBadSignature} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
