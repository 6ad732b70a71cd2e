package canary

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

// maxBody is how much of an answer is read; the rest is not waited for.
const maxBody = 1 << 20

type prober struct{ HTTP }

// measure sends requests for the window and counts their latencies, from the
// begin of a request to the end of its answer. Failed requests count as errors
// only: a refusal in a millisecond is not a fast answer.
func (p *prober) measure(ctx context.Context, window time.Duration) Measurement {
	m := Measurement{Codes: []string{}, Kind: "http", Name: p.Name}
	client := newClient(p.Timeout, p.Concurrency)
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var good latencies
	var goodOf [partsOf]latencies
	m.Parts = make([]Part, partsOf)
	start := time.Now()
	var probers sync.WaitGroup
	for range p.Concurrency {
		probers.Go(func() {
			every(ctx, p.Interval, window, func() {
				begin := time.Now()
				err := p.request(ctx, client)
				spent := time.Since(begin)
				if ctx.Err() != nil {
					return // broken off, not failed
				}
				at := min(int(begin.Sub(start)*partsOf/window), partsOf-1)
				mu.Lock()
				defer mu.Unlock()
				m.Samples++
				m.Parts[at].Samples++
				if err != nil {
					m.Errors++
					m.Parts[at].Errors++
					m.explain(err.Error())
					return
				}
				good.add(spent)
				goodOf[at].add(spent)
			})
		})
	}
	probers.Wait()
	m.setErrorRate()
	m.P50, m.P95, m.P99 = good.quantiles()
	for i := range m.Parts {
		part := &m.Parts[i]
		part.P50, part.P95, part.P99 = goodOf[i].quantiles()
	}
	return m
}

// newClient follows no redirects and knows no proxy: what is measured is the target.
func newClient(timeout time.Duration, connections int) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, ResponseHeaderTimeout: timeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (p *prober) request(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, p.Method, p.URL, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return err
	}
	if resp.StatusCode != p.Status {
		return fmt.Errorf("status %d, where %d is expected", resp.StatusCode, p.Status)
	}
	return nil
}

func (p *prober) judge(now, before *Measurement) []string {
	var codes []string
	now.Limits = p.limits()
	if now.Samples < p.SLA.MinSamples {
		codes = append(codes, codeFewSamples)
	}
	if now.Samples == 0 {
		return codes
	}
	if limit := p.SLA.ErrorRate; limit != nil && float64(now.Errors) > *limit*float64(now.Samples) {
		codes = append(codes, "error_rate")
	}
	for _, q := range []struct {
		name   string
		micros int64
		limit  time.Duration
	}{{"p50", now.P50, p.SLA.P50}, {"p95", now.P95, p.SLA.P95}, {"p99", now.P99, p.SLA.P99}} {
		// Without one good answer there is no latency that could meet a limit.
		if q.limit > 0 && (q.micros > q.limit.Microseconds() || now.Samples == now.Errors) {
			codes = append(codes, q.name)
		}
	}
	if before == nil || before.Samples < p.SLA.MinSamples || p.Regression.Factor == 0 {
		return codes
	}
	return append(codes, p.regressions(now, before)...)
}

func (p *prober) limits() *Limits {
	l := &Limits{P50: p.SLA.P50.Microseconds(), P95: p.SLA.P95.Microseconds(), P99: p.SLA.P99.Microseconds()}
	if p.SLA.ErrorRate != nil {
		rate := int64(math.Round(*p.SLA.ErrorRate * 1e6))
		l.ErrorRate = &rate
	}
	return l
}

func (p *prober) regressions(now, before *Measurement) []string {
	var codes []string
	r := p.Regression
	for _, q := range []struct {
		name        string
		now, before int64
		floor       float64
	}{
		{"p50", now.P50, before.P50, float64(r.Latency.Microseconds())},
		{"p95", now.P95, before.P95, float64(r.Latency.Microseconds())},
		{"p99", now.P99, before.P99, float64(r.Latency.Microseconds())},
		{"error_rate", now.ErrorRate, before.ErrorRate, r.ErrorRate * 1_000_000},
	} {
		if q.name != "error_rate" && (q.before == 0 || q.now == 0) {
			continue // one side had no good answer; error_rate says so
		}
		if regressed(float64(q.now), float64(q.before), r.Factor, q.floor) {
			codes = append(codes, "regression_"+q.name)
		}
	}
	return codes
}

func regressed(now, before, factor, floor float64) bool {
	return now > before*factor && now-before > floor
}
