package canary

import (
	"maps"
	"slices"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// maxReport bounds a stored baseline: 64 checks of a few hundred bytes each.
const maxReport = 1 << 20

// Report is what was measured, and after an apply what is wrong with it. Its
// stored form is canonical JSON.
type Report struct {
	Checks []Measurement `json:"checks"`
	From   envelope.Time `json:"from"`
	Target envelope.ID   `json:"target"`
	Until  envelope.Time `json:"until"`
}

// Measurement is one check's numbers.
type Measurement struct {
	Codes     []string `json:"codes"`           // what is wrong; empty in a baseline
	Detail    string   `json:"detail,omitzero"` // the last error, in plain words
	Errors    int64    `json:"errors"`
	ErrorRate int64    `json:"errorRatePpm"`    // errors per million samples
	Kind      string   `json:"kind"`            // http, prometheus, exec
	Limits    *Limits  `json:"limits,omitzero"` // that it was judged by; http only
	Name      string   `json:"name"`
	Parts     []Part   `json:"parts,omitzero"` // the window in equal parts, oldest first; http only
	P50       int64    `json:"p50Micros,omitzero"`
	P95       int64    `json:"p95Micros,omitzero"`
	P99       int64    `json:"p99Micros,omitzero"`
	Samples   int64    `json:"samples"`        // errors included
	Value     string   `json:"value,omitzero"` // prometheus: the median, a decimal number
}

// Part is what was measured of the requests that began in one part of a window.
type Part struct {
	Errors  int64 `json:"errors"`
	P50     int64 `json:"p50Micros,omitzero"` // latencies as Measurement's; 0 where no answer was good
	P95     int64 `json:"p95Micros,omitzero"`
	P99     int64 `json:"p99Micros,omitzero"`
	Samples int64 `json:"samples"`
}

// partsOf is how many parts a window is kept in.
const partsOf = 20

// Limits are a check's SLA, as far as one is set. A limit that is absent is none.
type Limits struct {
	ErrorRate *int64 `json:"errorRatePpm,omitzero"`
	P50       int64  `json:"p50Micros,omitzero"`
	P95       int64  `json:"p95Micros,omitzero"`
	P99       int64  `json:"p99Micros,omitzero"`
}

// codeFewSamples alone makes a canary inconclusive; beside others it failed.
const codeFewSamples = "too_few_samples"

func (r *Report) judge(checks []check, before []Measurement) workflow.CanaryResult {
	codes := map[string]bool{}
	for i, c := range checks {
		m := &r.Checks[i]
		var baseline *Measurement
		if j := slices.IndexFunc(before, func(b Measurement) bool { return b.Name == m.Name && b.Kind == m.Kind }); j >= 0 {
			baseline = &before[j]
		}
		m.Codes = append(m.Codes, c.judge(m, baseline)...)
		for _, code := range m.Codes {
			codes[code] = true
		}
	}
	result := workflow.CanaryResult{Passed: len(codes) == 0, Codes: slices.Sorted(maps.Keys(codes))}
	result.Inconclusive = len(codes) == 1 && codes[codeFewSamples]
	return result
}

// step is the resolution of latencies.
const step = 100 * time.Microsecond

// latencies counts durations in steps, rounded up. So its size is bounded by
// the longest timeout, not by the number of samples.
type latencies struct {
	counts map[int64]int64
	n      int64
}

func (l *latencies) add(d time.Duration) {
	if l.counts == nil {
		l.counts = map[int64]int64{}
	}
	l.counts[int64((d+step-1)/step)]++
	l.n++
}

// quantile is the nearest rank: the smallest measured value that at least
// percent of all values do not exceed, in microseconds; 0 where there is none.
func (l *latencies) quantile(percent int64) int64 {
	rank := (l.n*percent + 99) / 100
	for _, value := range slices.Sorted(maps.Keys(l.counts)) {
		if rank -= l.counts[value]; rank <= 0 {
			return value * step.Microseconds()
		}
	}
	return 0
}

func (l *latencies) quantiles() (p50, p95, p99 int64) {
	return l.quantile(50), l.quantile(95), l.quantile(99)
}

func (m *Measurement) setErrorRate() {
	if m.Samples > 0 {
		m.ErrorRate = (m.Errors*1_000_000 + m.Samples - 1) / m.Samples
	}
}

// explain keeps an error's text, short and without what no report may hold.
func (m *Measurement) explain(text string) {
	clean := make([]rune, 0, 200)
	for _, r := range text {
		if len(clean) == cap(clean) {
			break
		}
		if envelope.CheckText("detail", string(r), 1) != nil || r == '\n' || r == '\t' {
			r = ' '
		}
		clean = append(clean, r)
	}
	m.Detail = string(clean)
}
