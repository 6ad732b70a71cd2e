package api

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// Config is what the API stands on. All but Sessions, SigningRequests, Log and
// PrivateLog is required.
type Config struct {
	Engine    Engine
	Artifacts workflow.Artifacts
	Tokens    *TokenFile
	// Sessions says who sent a request without a token, by a session's cookie.
	// It refuses what another site had a browser send. nil: tokens only.
	Sessions func(*http.Request) (id envelope.ID, role string, ok bool, err error)
	Health   Health
	Logger   *slog.Logger
	Metrics  *prometheus.Registry

	// SigningRequests keeps what people ask their own machines to sign; nil:
	// no such requests are taken.
	SigningRequests SigningStore

	Log        LogReader // what /log/ shows; nil: there is no /log/
	PrivateLog bool      // /log/ needs a token, as the rest does
}

type server struct {
	Config
	health *monitor
	stream *follower
	places *places
	desk   *desk
}

var _ ServerInterface = (*server)(nil)

// New is the API's handler. It registers its metrics with c.Metrics.
func New(c Config) (http.Handler, error) {
	s := &server{Config: c, health: &monitor{Health: c.Health, log: c.Logger}, stream: &follower{engine: c.Engine}, places: newPlaces(), desk: newDesk(c.SigningRequests)}
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kernelgate_http_request_seconds", Help: "Duration of HTTP requests, by route.",
		Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60},
	}, []string{"method", "route", "status"})
	for _, collector := range []prometheus.Collector{requests, s.health} {
		if err := c.Metrics.Register(collector); err != nil {
			return nil, err
		}
	}
	e := echo.New()
	e.HTTPErrorHandler = errorHandler(c.Logger)
	e.JSONSerializer = serializer{}
	e.Use(observe(requests), harmless, middleware.RecoverWithConfig(middleware.RecoverConfig{LogErrorFunc: s.logPanic}), s.authenticate)
	RegisterHandlers(e, s)
	s.registerLog(e)
	return e, nil
}

func (s *server) logPanic(c echo.Context, err error, stack []byte) error {
	s.Logger.ErrorContext(c.Request().Context(), "a handler panicked", "path", c.Path(), "err", err, "stack", string(stack))
	return err
}

// observe measures each request by its route, never by its path, which a
// stranger chooses.
func observe(requests *prometheus.HistogramVec) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := time.Now()
			if err := next(c); err != nil {
				c.Error(err)
			}
			requests.WithLabelValues(knownMethod(c.Request().Method), c.Path(), strconv.Itoa(c.Response().Status)).Observe(time.Since(start).Seconds())
			return nil
		}
	}
}

// harmless keeps a browser that is led to an answer from showing it as a page
// of this origin: what uploaders and proposers wrote is never run.
func harmless(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header.Set(echo.HeaderXContentTypeOptions, "nosniff")
		header.Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; frame-ancestors 'none'; sandbox")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		return next(c)
	}
}

func knownMethod(method string) string {
	if slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead}, method) {
		return method
	}
	return "other"
}

// Paths are the patterns, for http.ServeMux, under which the API answers.
var Paths = []string{"/v1/", "/log/", "/livez", "/readyz", "/metrics"}

// open are the routes without a token: they tell whether the gateway works
// and nothing about upgrades.
var open = []string{"/livez", "/readyz", "/metrics"}

const tokenKey = "token"

func (s *server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if slices.Contains(open, c.Path()) || s.openLog(c.Path()) {
			return next(c)
		}
		token, err := s.identify(c.Request())
		if err != nil {
			return err
		}
		c.Set(tokenKey, token)
		return next(c)
	}
}

// identify finds out who sent a request: by its token or, where it has none,
// by its session.
func (s *server) identify(r *http.Request) (Token, error) {
	header := r.Header.Get(echo.HeaderAuthorization)
	if header == "" && s.Sessions != nil {
		id, role, ok, err := s.Sessions(r)
		if err != nil || ok {
			return Token{ID: id, Role: Role(role)}, err
		}
	}
	text, ok := bearer(header)
	if !ok {
		return Token{}, refuse(http.StatusUnauthorized, CodeUnauthenticated, "send a token: Authorization: Bearer kgt_...")
	}
	token, found, err := s.Tokens.Find(text)
	if err == nil && !found {
		err = refuse(http.StatusUnauthorized, CodeUnauthenticated, "the token is not known; ask an operator for a new one")
	}
	return token, err
}

// allow refuses a token whose role is none of these. An operator carries for
// others (an air-gapped approver, say) and may post whatever is signed.
func allow(c echo.Context, allowed ...Role) error {
	token, ok := c.Get(tokenKey).(Token)
	if ok && (token.Role == RoleOperator || slices.Contains(allowed, token.Role)) {
		return nil
	}
	return refuse(http.StatusForbidden, CodeForbidden, "a token of role %s may not do this", token.Role)
}

// holder is whose token was sent.
func holder(c echo.Context) envelope.ID {
	token, _ := c.Get(tokenKey).(Token) // authenticate has set it
	return token.ID
}

// serializer writes JSON as the rest of the house does. Bodies are never read
// with it, but by the strict parsers.
type serializer struct{}

func (serializer) Serialize(c echo.Context, v any, _ string) error {
	return json.MarshalWrite(c.Response(), v)
}

func (serializer) Deserialize(_ echo.Context, _ any) error {
	return refuse(http.StatusInternalServerError, CodeInternal, "bodies are read by the strict parsers")
}
