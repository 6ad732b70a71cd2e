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
			info.Charts = charts(now, c.measured(now.Name), c.After != nil)
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
func charts(now canary.Measurement, before *canary.Measurement, judged bool) []chart {
	limits := canary.Limits{}
	if now.Limits != nil {
		limits = *now.Limits
	}
	errors := chart{Title: "Error rate", Format: percent}
	latency := chart{Title: "Latency", Format: millis}
	errors.add("errors", now.ErrorRate, before, func(m *canary.Measurement) int64 { return m.ErrorRate }, limits.ErrorRate, judged)
	for _, q := range []struct {
		name  string
		of    func(*canary.Measurement) int64
		limit int64
	}{
		{"p50", func(m *canary.Measurement) int64 { return m.P50 }, limits.P50},
		{"p95", func(m *canary.Measurement) int64 { return m.P95 }, limits.P95},
		{"p99", func(m *canary.Measurement) int64 { return m.P99 }, limits.P99},
	} {
		var limit *int64
		if q.limit > 0 {
			limit = &q.limit
		}
		latency.add(q.name, q.of(&now), before, q.of, limit, judged)
	}
	return []chart{errors.laidOut(), latency.laidOut()}
}

func percent(ppm int64) string {
	return strconv.FormatFloat(float64(ppm)/10_000, 'f', -1, 64) + " %"
}

func millis(micros int64) string {
	return strconv.FormatFloat(float64(micros)/1000, 'f', 1, 64) + " ms"
}
