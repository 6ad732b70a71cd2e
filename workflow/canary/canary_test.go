package canary_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/canary"
)

const window = 300 * time.Millisecond

func watch(t *testing.T, target canary.Target, baseline []byte) (workflow.CanaryResult, canary.Report) {
	t.Helper()
	if target.Window == 0 {
		target.Window = window
	}
	c, err := canary.New(canary.Config{"web": target})
	if err != nil {
		t.Fatal(err)
	}
	result, err := c.Watch(t.Context(), "web", baseline)
	if err != nil {
		t.Fatal(err)
	}
	var report canary.Report
	if err := envelope.DecodeCanonical(result.Report, 1<<20, &report); err != nil {
		t.Fatalf("the report is not canonical: %v", err)
	}
	return result, report
}

func baseline(t *testing.T, target canary.Target) []byte {
	t.Helper()
	target.Window = window
	c, err := canary.New(canary.Config{"web": target})
	if err != nil {
		t.Fatal(err)
	}
	report, err := c.Baseline(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func probe(url string) canary.HTTP {
	return canary.HTTP{Name: "page", URL: url, Interval: 10 * time.Millisecond, Timeout: 100 * time.Millisecond}
}

func rate(r float64) *float64 { return &r }

func wantCodes(t *testing.T, result workflow.CanaryResult, codes ...string) {
	t.Helper()
	if !slices.Equal(result.Codes, codes) && len(result.Codes)+len(codes) > 0 || result.Passed != (len(codes) == 0) {
		t.Fatalf("codes %v, passed %v, want %v: %s", result.Codes, result.Passed, codes, result.Report)
	}
}

// checkParts: the parts of a window are the whole, taken apart.
func checkParts(t *testing.T, m canary.Measurement) {
	t.Helper()
	sum := canary.Part{}
	for _, p := range m.Parts {
		sum.Samples, sum.Errors = sum.Samples+p.Samples, sum.Errors+p.Errors
		if p.P50 > p.P99 || (p.P50 > 0) != (p.Samples > p.Errors) {
			t.Errorf("a part's numbers: %+v", p)
		}
	}
	if len(m.Parts) != 20 || sum.Samples != m.Samples || sum.Errors != m.Errors {
		t.Errorf("%d parts have %d samples and %d errors, the whole %d and %d", len(m.Parts), sum.Samples, sum.Errors, m.Samples, m.Errors)
	}
}

func TestHTTPPasses(t *testing.T) {
	var concurrent, most atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), concurrent.Add(1)))
		defer concurrent.Add(-1)
		if r.Method != http.MethodHead {
			http.Error(w, "wrong method", http.StatusMethodNotAllowed)
			return
		}
		time.Sleep(5 * time.Millisecond)
		w.WriteHeader(http.StatusNoContent)
	})
	p := probe(url)
	p.Method, p.Status, p.Concurrency = http.MethodHead, http.StatusNoContent, 3
	p.SLA = canary.SLA{ErrorRate: rate(0), P99: 90 * time.Millisecond, MinSamples: 20}
	result, report := watch(t, canary.Target{HTTP: []canary.HTTP{p}}, nil)
	wantCodes(t, result)
	m := report.Checks[0]
	if m.Samples < 20 || m.Errors != 0 || m.P50 < 5000 || m.P50 > m.P95 || m.P95 > m.P99 || m.P50%100 != 0 {
		t.Errorf("numbers: %+v", m)
	}
	checkParts(t, m)
	if most.Load() > 3 {
		t.Errorf("%d requests at once, where 3 are configured", most.Load())
	}
}

func TestHTTPFails(t *testing.T) {
	var n atomic.Int64
	half := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	slow := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(40 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	moved := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, half, http.StatusFound) })
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct {
		url   string
		sla   canary.SLA
		codes []string
	}{
		"half of the answers fail":    {half, canary.SLA{ErrorRate: rate(0.3)}, []string{"error_rate"}},
		"half may fail":               {half, canary.SLA{ErrorRate: rate(0.6)}, nil},
		"slow":                        {slow, canary.SLA{P50: 20 * time.Millisecond, P95: 20 * time.Millisecond, P99: time.Second}, []string{"p50", "p95"}},
		"a redirect is not followed":  {moved, canary.SLA{ErrorRate: rate(0)}, []string{"error_rate"}},
		"nobody listens":              {closed.URL, canary.SLA{ErrorRate: rate(0), P99: time.Second}, []string{"error_rate", "p99"}},
		"too few samples":             {half, canary.SLA{MinSamples: 1000}, []string{"too_few_samples"}},
		"too few, and those are slow": {slow, canary.SLA{MinSamples: 1000, P50: time.Millisecond}, []string{"p50", "too_few_samples"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := probe(c.url)
			p.SLA = c.sla
			result, report := watch(t, canary.Target{HTTP: []canary.HTTP{p}}, nil)
			wantCodes(t, result, c.codes...)
			checkParts(t, report.Checks[0])
			if want := slices.Equal(c.codes, []string{"too_few_samples"}); result.Inconclusive != want {
				t.Errorf("inconclusive is %v", result.Inconclusive)
			}
		})
	}
}

func TestRegression(t *testing.T) {
	var pause atomic.Int64
	var broken atomic.Bool
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Duration(pause.Load()))
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	p := probe(url)
	p.Regression = canary.Regression{Factor: 2, Latency: 15 * time.Millisecond, ErrorRate: 0.1}
	target := canary.Target{HTTP: []canary.HTTP{p}}
	before := baseline(t, target)
	pause.Store(int64(8 * time.Millisecond)) // far above the factor, below the floor
	target.HTTP[0].Regression.Latency = 80 * time.Millisecond
	result, _ := watch(t, target, before)
	wantCodes(t, result)
	target.HTTP[0].Regression.Latency = 15 * time.Millisecond
	pause.Store(int64(60 * time.Millisecond))
	result, _ = watch(t, target, before)
	if !slices.Contains(result.Codes, "regression_p50") || slices.Contains(result.Codes, "regression_error_rate") {
		t.Errorf("codes %v", result.Codes)
	}
	pause.Store(0)
	broken.Store(true)
	result, _ = watch(t, target, before)
	wantCodes(t, result, "regression_error_rate")
	result, _ = watch(t, target, nil)
	wantCodes(t, result) // nothing to compare with, and no limit
}

// prometheus answers as Prometheus' HTTP API does.
func prometheus(t *testing.T, body func(query string) (int, string)) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prom/api/v1/query" {
			http.NotFound(w, r)
			return
		}
		status, text := body(r.FormValue("query"))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}) + "/prom"
}

func vector(values ...string) string {
	s := ""
	for i, v := range values {
		if i > 0 {
			s += ","
		}
		s += `{"metric":{"job":"web"},"value":[1780000000.123,"` + v + `"]}`
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + s + `]}}`
}

func TestPrometheus(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		codes  []string
	}{
		"in bounds":   {200, vector("0.5"), nil},
		"scalar":      {200, `{"status":"success","data":{"resultType":"scalar","result":[1780000000,"0.25"]}}`, nil},
		"above":       {200, vector("1.5"), []string{"prometheus"}},
		"below":       {200, vector("-1e-3"), []string{"prometheus"}},
		"infinite":    {200, vector("+Inf"), []string{"prometheus"}},
		"no number":   {200, vector("NaN"), []string{"too_few_samples"}},
		"no series":   {200, vector(), []string{"too_few_samples"}},
		"two series":  {200, vector("0.5", "0.6"), []string{"too_few_samples"}},
		"matrix":      {200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, []string{"too_few_samples"}},
		"bad query":   {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, []string{"too_few_samples"}},
		"not JSON":    {200, "<html>", []string{"too_few_samples"}},
		"unavailable": {503, "", []string{"too_few_samples"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := prometheus(t, func(q string) (int, string) {
				if q != `up{job="web"}` {
					t.Errorf("query %q", q)
				}
				return c.status, c.body
			})
			result, _ := watch(t, canary.Target{Prometheus: []canary.Prometheus{{
				Name: "errors", URL: url, Query: `up{job="web"}`, Interval: 50 * time.Millisecond, Min: rate(0), Max: rate(1)}}}, nil)
			wantCodes(t, result, c.codes...)
		})
	}
}

func TestPrometheusRegression(t *testing.T) {
	var value atomic.Value
	value.Store("10")
	url := prometheus(t, func(string) (int, string) { return 200, vector(value.Load().(string)) })
	target := canary.Target{Prometheus: []canary.Prometheus{{Name: "queue", URL: url, Query: "q", Interval: 50 * time.Millisecond, Factor: 2, Floor: 15}}}
	before := baseline(t, target)
	for v, codes := range map[string][]string{"20": nil, "24": nil, "26": {"regression_prometheus"}} {
		value.Store(v)
		result, _ := watch(t, target, before)
		wantCodes(t, result, codes...)
	}
}

func TestExec(t *testing.T) {
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	t.Setenv("KERNELGATE_SECRET", "hidden")
	target := canary.Target{Exec: []canary.Exec{
		{Name: "good", Argv: sh(`test "$KERNELGATE_TARGET" = web && test -z "$KERNELGATE_SECRET"`)},
		{Name: "bad", Argv: sh("echo page is empty >&2; exit 3")},
		{Name: "loud", Argv: sh("yes | head -c 1000000; exit 1")},
		{Name: "stuck", Argv: sh("sleep 60 & sleep 60"), Timeout: 200 * time.Millisecond},
		{Name: "missing", Argv: []string{"/nonexistent/program"}},
	}}
	begin := time.Now()
	result, report := watch(t, target, nil)
	wantCodes(t, result, "exec")
	if time.Since(begin) > 10*time.Second {
		t.Error("a stuck smoke test holds the canary up")
	}
	for i, want := range []string{"", "exit status 3: page is empty ", "exit status 1: y y", "ended after 200ms", "no such file"} {
		if m := report.Checks[i]; (want == "") != (m.Errors == 0) || want != "" && !strings.Contains(m.Detail, want) || len(m.Detail) > 200 {
			t.Errorf("%s: %+v, want %q", m.Name, m, want)
		}
	}
}

func TestBrokenOff(t *testing.T) {
	url := serve(t, func(http.ResponseWriter, *http.Request) {})
	c, err := canary.New(canary.Config{"web": {Window: time.Hour, HTTP: []canary.HTTP{probe(url)}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Watch(ctx, "web", nil); err == nil {
		t.Fatal("a window that was broken off has a verdict")
	}
	if result, err := c.Watch(t.Context(), "db", nil); err != nil || !result.Passed || result.Report != nil {
		t.Fatalf("a target that nobody watches: %+v, %v", result, err)
	}
	if report, err := c.Baseline(t.Context(), "db"); err != nil || report != nil {
		t.Fatalf("its baseline: %s, %v", report, err)
	}
	if _, err := c.Watch(t.Context(), "web", []byte(`{"x":1}`)); err == nil {
		t.Fatal("a baseline that is none is taken")
	}
}

func TestConfigRefuses(t *testing.T) {
	good := func() canary.Target {
		return canary.Target{Window: time.Second, HTTP: []canary.HTTP{probe("http://h")}}
	}
	for name, spoil := range map[string]func(*canary.Target){
		"no check":          func(c *canary.Target) { c.HTTP = nil },
		"no window":         func(c *canary.Target) { c.Window = 0 },
		"window of a week":  func(c *canary.Target) { c.Window = 168 * time.Hour },
		"two of a name":     func(c *canary.Target) { c.HTTP = append(c.HTTP, c.HTTP[0]) },
		"no name":           func(c *canary.Target) { c.HTTP[0].Name = "" },
		"ftp":               func(c *canary.Target) { c.HTTP[0].URL = "ftp://h" },
		"password in a URL": func(c *canary.Target) { c.HTTP[0].URL = "http://u:p@h" },
		"busy":              func(c *canary.Target) { c.HTTP[0].Interval = time.Millisecond },
		"65 at once":        func(c *canary.Target) { c.HTTP[0].Concurrency = 65 },
		"error rate of 2":   func(c *canary.Target) { c.HTTP[0].SLA.ErrorRate = rate(2) },
		"factor of a half":  func(c *canary.Target) { c.HTTP[0].Regression.Factor = 0.5 },
		"a relative path":   func(c *canary.Target) { c.Exec = []canary.Exec{{Name: "x", Argv: []string{"sh"}}} },
		"a query unjudged":  func(c *canary.Target) { c.Prometheus = []canary.Prometheus{{Name: "x", URL: "http://h", Query: "q"}} },
	} {
		target := good()
		spoil(&target)
		if _, err := canary.New(canary.Config{"web": target}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := canary.New(canary.Config{"Web": good()}); err == nil {
		t.Error("a target whose name is no ID is accepted")
	}
}
