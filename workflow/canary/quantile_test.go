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
