package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
)

// The stable codes beside the failure classes.
const (
	CodeBadRequest       = "bad_request"
	CodeUnauthenticated  = "unauthenticated"
	CodeForbidden        = "forbidden"
	CodeNotFound         = "not_found"
	CodeMethodNotAllowed = "method_not_allowed"
	CodeConflict         = "conflict"
	CodeTooLarge         = "too_large"
	CodeMediaType        = "unsupported_media_type"
	CodeUnavailable      = "unavailable"
	CodeInternal         = "internal"
)

const (
	problemType = "application/problem+json"
	// retryAfter is the seconds a client waits after 503: the guard restarts
	// and is asked again within about that time.
	retryAfter = "5"
)

// apiError is a refusal by the API itself.
type apiError struct {
	status int
	code   string
	detail string
}

func (e *apiError) Error() string { return e.code + ": " + e.detail }

func refuse(status int, code, format string, args ...any) error {
	return &apiError{status, code, fmt.Sprintf(format, args...)}
}

// classStatus are the failure classes that are not 422: the bytes are no
// record at all (400), or a state that may change speaks against it (409).
var classStatus = map[failure.Class]int{
	failure.EnvelopeMalformed:   http.StatusBadRequest,
	failure.PayloadMalformed:    http.StatusBadRequest,
	failure.PayloadNotCanonical: http.StatusBadRequest,
	failure.WrongPayloadType:    http.StatusBadRequest,
	failure.BaseRevisionMoved:   http.StatusConflict,
	failure.AlreadySigned:       http.StatusConflict,
	failure.PolicyDenied:        http.StatusConflict,
	failure.EmergencyNotAllowed: http.StatusConflict,
	failure.NotYetDue:           http.StatusConflict,
}

// ProblemOf is the one translation from an error to an answer. What is not
// known becomes internal, without a word of its text.
func ProblemOf(err error) Problem {
	var own *apiError
	var tooLarge *http.MaxBytesError
	var routing *echo.HTTPError
	class := failure.ClassOf(err)
	switch {
	case errors.As(err, &own):
		return problem(own.status, own.code, own.detail)
	case class != "":
		status, known := classStatus[class]
		if !known {
			status = http.StatusUnprocessableEntity
		}
		return problem(status, string(class), failure.DetailOf(err))
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, CodeTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.Is(err, workflow.ErrArtifactTooBig):
		return problem(http.StatusRequestEntityTooLarge, CodeTooLarge, "the artifact is larger than this gateway accepts")
	case errors.Is(err, workflow.ErrNotFound):
		return problem(http.StatusNotFound, CodeNotFound, "there is no such thing here")
	case errors.Is(err, workflow.ErrConflict):
		return problem(http.StatusConflict, CodeConflict, strings.TrimPrefix(err.Error(), workflow.ErrConflict.Error()+": "))
	case errors.Is(err, workflow.ErrUnknownTarget):
		return problem(http.StatusUnprocessableEntity, string(failure.FieldInvalid), err.Error())
	case errors.Is(err, workflow.ErrTargetUnavailable):
		return problem(http.StatusServiceUnavailable, CodeUnavailable, "the target does not say what is live at the moment, and its base must be known; try again, or ask an operator, who finds the reason in the gateway's log")
	case errors.Is(err, workflow.ErrHeld):
		return problem(http.StatusServiceUnavailable, CodeUnavailable, err.Error())
	case errors.Is(err, workflow.ErrGuardUnavailable), errors.Is(err, workflow.ErrStoreUnavailable), errors.Is(err, signer.ErrBusy), errors.Is(err, signer.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, CodeUnavailable, "something that is needed does not answer at the moment; try again")
	case errors.As(err, &routing):
		return routingProblem(routing)
	default:
		return problem(http.StatusInternalServerError, CodeInternal, "the gateway failed; its log says why")
	}
}

// routingProblem translates what echo and the generated code refuse.
func routingProblem(err *echo.HTTPError) Problem {
	switch err.Code {
	case http.StatusNotFound:
		return problem(err.Code, CodeNotFound, "there is no such path")
	case http.StatusMethodNotAllowed:
		return problem(err.Code, CodeMethodNotAllowed, "the path does not know this method")
	case http.StatusBadRequest:
		return problem(err.Code, CodeBadRequest, fmt.Sprint(err.Message))
	default:
		return problem(http.StatusInternalServerError, CodeInternal, "the gateway failed; its log says why")
	}
}

func problem(status int, code, detail string) Problem {
	p := Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code}
	if detail != "" {
		p.Detail = &detail
	}
	return p
}

// errorHandler answers with a problem. After the first byte of an answer it
// can only break the connection, which the client sees as a failed download.
func errorHandler(log *slog.Logger) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		if c.Response().Committed {
			log.ErrorContext(c.Request().Context(), "an answer broke off", "path", c.Path(), "err", err)
			panic(http.ErrAbortHandler)
		}
		p := ProblemOf(err)
		if p.Status >= http.StatusInternalServerError {
			log.ErrorContext(c.Request().Context(), "a request failed", "method", c.Request().Method, "path", c.Path(), "code", p.Code, "err", err)
		}
		switch p.Status {
		case http.StatusServiceUnavailable:
			c.Response().Header().Set(echo.HeaderRetryAfter, retryAfter)
		case http.StatusUnauthorized:
			c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="kernelgate"`)
		}
		body, err := json.Marshal(p)
		if err == nil {
			err = c.Blob(p.Status, problemType, body)
		}
		if err != nil {
			log.WarnContext(c.Request().Context(), "a problem could not be sent", "err", err)
		}
	}
}
