package canary

import (
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var l latencies
	if l.quantile(50) != 0 {
		t.Error("nothing measured, yet a quantile")
	}
	for i := 1; i <= 200; i++ {
		l.add(time.Duration(i) * time.Millisecond)
	}
	for percent, want := range map[int64]int64{50: 100_000, 95: 190_000, 99: 198_000, 100: 200_000} {
		if got := l.quantile(percent); got != want {
			t.Errorf("p%d is %d µs, not %d", percent, got, want)
		}
	}
	one := latencies{}
	one.add(1)
	if one.quantile(50) != 100 || one.quantile(99) != 100 {
		t.Error("a nanosecond is rounded up to one step")
	}
}

// FuzzParseAnswer: whatever a server answers is a number or an error.
func FuzzParseAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.5"]}]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":null}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}`,
		`{"status":"error","error":"x"}`, `null`, `[]`, ``,
	} {
		f.Add(200, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if value, err := parseAnswer(status, body); err == nil && (value != value || status != 200) {
			t.Fatalf("%v of status %d, %q", value, status, body)
		}
	})
}
