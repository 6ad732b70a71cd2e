package pkcs11

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchdogTellsOnceAndForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watchdog
		var told atomic.Int32
		slow := w.watch(time.Second, func() { told.Add(1) })
		quick := w.watch(time.Minute, func() { t.Error("a call in time counts as stuck") })
		time.Sleep(900 * time.Millisecond)
		if w.stuck.Load() != 0 || told.Load() != 0 {
			t.Error("stuck before its limit")
		}
		time.Sleep(300 * time.Millisecond)
		if w.stuck.Load() != 1 || told.Load() != 1 {
			t.Errorf("%d stuck, told %d times after the limit; want 1 and 1", w.stuck.Load(), told.Load())
		}
		time.Sleep(10 * time.Second)
		if told.Load() != 1 {
			t.Errorf("told %d times", told.Load())
		}
		w.end(slow)
		w.end(quick)
		if w.stuck.Load() != 0 {
			t.Error("a call that returned is stuck for ever")
		}
	}) // ends only if the watchdog's timer rests
}
