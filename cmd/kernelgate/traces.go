package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Traces say where OpenTelemetry traces go. A span has names, ids and failure
// classes: never a path that a client chose, a text, a token or an error's words.
type Traces struct {
	URL    string  `yaml:"url"`    // of an OTLP receiver over HTTP; empty: none are made
	Sample float64 `yaml:"sample"` // which part of the traces is made, 0 to 1
}

func (t *Traces) settle(*Config) error {
	if t.Sample < 0 || t.Sample > 1 {
		return errors.New("sample: set 0 to 1")
	}
	if t.URL == "" {
		return nil
	}
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New("url: set one of http or https, without a password in it, such as http://127.0.0.1:4318/v1/traces")
	}
	return nil
}

// tracer makes spans; the zero one makes none.
type tracer struct{ trace.Tracer }

// traceFlush bounds how long the last spans may take to leave.
const traceFlush = 5 * time.Second

// openTraces starts the export, which nothing waits for.
func (g *gateway) openTraces(ctx context.Context) error {
	c := g.config.Traces
	if c.URL == "" {
		return nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.URL))
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	ratio := sdktrace.TraceIDRatioBased(c.Sample)
	provider := sdktrace.NewTracerProvider(
		// What a client says of sampling costs nothing here.
		sdktrace.WithBatcher(exporter), sdktrace.WithSampler(sdktrace.ParentBased(ratio, sdktrace.WithRemoteParentSampled(ratio), sdktrace.WithRemoteParentNotSampled(ratio))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "kernelgate"),
			attribute.String("service.version", version()), attribute.String("service.instance.id", g.config.Instance))))
	g.tracer = tracer{provider.Tracer("kernelgate")}
	g.closes(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			g.log.WarnContext(ctx, "the last traces could not be sent", "err", err)
		}
		return nil
	})
	return nil
}

// span runs f within a span, if spans are made.
func (t tracer) span(ctx context.Context, name string, f func(context.Context) error, labels ...attribute.KeyValue) error {
	if t.Tracer == nil {
		return f(ctx)
	}
	ctx, s := t.Start(ctx, name, trace.WithAttributes(labels...))
	defer s.End()
	err := f(ctx)
	if err != nil {
		class := string(failure.ClassOf(err))
		if class == "" {
			class = "error"
		}
		s.SetStatus(codes.Error, class)
	}
	return err
}

// status keeps an answer's status.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Flush sends what was written, for streams.
func (s *status) Flush() { _ = http.NewResponseController(s.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// requests gives each request a span. The client's trace, where it sends one,
// goes on.
func (t tracer) requests(next http.Handler) http.Handler {
	if t.Tracer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, s := t.Start(ctx, "http "+areaOf(r.URL.Path), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.Bool("http.write", r.Method != http.MethodGet)))
		defer s.End()
		answer := &status{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(answer, r.WithContext(ctx))
		s.SetAttributes(attribute.Int("http.response.status_code", answer.code))
		if answer.code >= http.StatusInternalServerError {
			s.SetStatus(codes.Error, "")
		}
	})
}

// areaOf is what a path is below, in words of ours.
func areaOf(path string) string {
	for _, area := range api.Paths {
		if strings.HasPrefix(path, area) {
			return strings.Trim(area, "/")
		}
	}
	return "commandpad"
}
