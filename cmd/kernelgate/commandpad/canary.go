package commandpad

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/canary"
)

// canaryInfo is what the canary measured, before the apply and after it.
type canaryInfo struct {
	Passed  bool
	Before  *canary.Report // nil where no baseline was taken
	After   *canary.Report // nil until it is judged
	Checks  []checkInfo
	Waiting bool
}

// checkInfo is one check with its charts.
type checkInfo struct {
	Now    canary.Measurement
	Charts []chart
}

// take adds the report that a record holds.
func (c *canaryInfo) take(record workflow.Record) error {
	var stored struct {
		Passed bool          `json:"passed"`
		Report canary.Report `json:"report"`
	}
	if err := json.Unmarshal(record.Body, &stored); err != nil {
		return fmt.Errorf("stored %s %s: %w", record.Kind, record.Digest, err)
	}
	if record.Kind == workflow.KindCanaryBaseline {
		c.Before = &stored.Report
	} else {
		c.After, c.Passed = &stored.Report, stored.Passed
	}
	return nil
}

// draw makes the charts of each check once the reports are read.
func (c *canaryInfo) draw() {
	report := c.After
	if report == nil {
		report = c.Before
	}
	if report == nil {
		return
	}
	for _, now := range report.Checks {
		info := checkInfo{Now: now}
		if now.Kind == "http" {
			after := &now
			if c.After == nil {
				after = nil
			}
			info.Charts = charts(c.measured(now.Name), after)
		}
		c.Checks = append(c.Checks, info)
	}
}

// measured is a check's baseline; nil where there is none.
func (c *canaryInfo) measured(name string) *canary.Measurement {
	if c.Before == nil {
		return nil
	}
	for i := range c.Before.Checks {
		if c.Before.Checks[i].Name == name {
			return &c.Before.Checks[i]
		}
	}
	return nil
}

// charts are the error rate and the latencies of a check, against its limits.
func charts(before, after *canary.Measurement) []chart {
	limits, split := canary.Limits{}, 0
	if after != nil && after.Limits != nil {
		limits = *after.Limits
	}
	if before != nil {
		split = len(before.Parts)
	}
	errors := chart{Title: "Error rate", format: percent}
	errors.add(measure{"errors", func(m *canary.Measurement) int64 { return m.ErrorRate }, failed, limits.ErrorRate}, before, after)
	latency := chart{Title: "Latency", format: millis}
	answers := func(of func(*canary.Measurement) int64) func(*canary.Measurement) int64 {
		return func(m *canary.Measurement) int64 {
			if m.Samples == m.Errors {
				return -1
			}
			return of(m)
		}
	}
	for _, m := range []measure{
		{"p50", answers(func(m *canary.Measurement) int64 { return m.P50 }), answered(func(p *canary.Part) int64 { return p.P50 }), some(limits.P50)},
		{"p95", answers(func(m *canary.Measurement) int64 { return m.P95 }), answered(func(p *canary.Part) int64 { return p.P95 }), some(limits.P95)},
		{"p99", answers(func(m *canary.Measurement) int64 { return m.P99 }), answered(func(p *canary.Part) int64 { return p.P99 }), some(limits.P99)},
	} {
		latency.add(m, before, after)
	}
	return []chart{errors.laidOut(split), latency.laidOut(split)}
}

// failed is a part's error rate in errors per million; -1 where nothing was asked.
func failed(p *canary.Part) int64 {
	if p.Samples == 0 {
		return -1
	}
	return p.Errors * 1_000_000 / p.Samples
}

// answered is a part's latency; -1 where no answer was good.
func answered(of func(*canary.Part) int64) func(*canary.Part) int64 {
	return func(p *canary.Part) int64 {
		if p.Samples == p.Errors {
			return -1
		}
		return of(p)
	}
}

// some is a limit of latency, which is none where it is 0.
func some(limit int64) *int64 {
	if limit == 0 {
		return nil
	}
	return &limit
}

func percent(ppm int64) string {
	return strconv.FormatFloat(float64(ppm)/10_000, 'f', -1, 64) + " %"
}

func millis(micros int64) string {
	if micros < 0 {
		return "no good answer"
	}
	if micros >= 1_000_000 {
		return strconv.FormatFloat(float64(micros)/1_000_000, 'f', -1, 64) + " s"
	}
	return strconv.FormatFloat(float64(micros)/1000, 'f', 1, 64) + " ms"
}
