package signertest

import (
	"slices"
	"testing"
	"time"
)

// CheckRecovery holds the times that a device took to sign again, each after
// what is said, against limit. The second best counts: a machine that tests
// much else at once is itself now and then away, but a device that is late by
// its own doing is so nearly every time.
func CheckRecovery(t testing.TB, after string, limit time.Duration, times []time.Duration) {
	t.Helper()
	limit *= slowdown
	if sorted := slices.Sorted(slices.Values(times)); sorted[1] > limit {
		t.Errorf("%s: signs again only after %v, limit %v; each time: %v", after, sorted[1], limit, times)
	}
}
