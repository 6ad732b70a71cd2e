package history_test

import (
	"crypto/ed25519"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/storage/auditlog/logtest"
)

// BenchmarkVerify is whole logs verified, in events a second, and the ratio to
// bare Ed25519 verifications of the same signatures on all cores.
func BenchmarkVerify(b *testing.B) {
	const events = 20_000
	log := logtest.New(events)
	claim := history.Claim{Registry: log.Entries, Checkpoint: log.Checkpoint(events)}
	var whole, bare time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		if _, err := history.Verify(b.Context(), history.Trust{Root: log.Root}, claim, logtest.All(log.Leaves)); err != nil {
			b.Fatal(err)
		}
		whole += time.Since(start)
		bare += bareVerify(b, log)
		n += events
	}
	b.ReportMetric(float64(n)/whole.Seconds(), "events/s")
	b.ReportMetric(bare.Seconds()/whole.Seconds(), "of-bare-ed25519")
}

func bareVerify(b *testing.B, log *logtest.Log) time.Duration {
	b.Helper()
	key := log.Key.Public().Key().(ed25519.PublicKey)
	messages, signatures := make([][]byte, len(log.Leaves)), make([][]byte, len(log.Leaves))
	for i, leaf := range log.Leaves {
		_, env, err := auditlog.ParseLeaf(leaf)
		if err != nil {
			b.Fatal(err)
		}
		messages[i], signatures[i] = env.PAE(), env.Signatures[0].Sig
	}
	start := time.Now()
	var group sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		group.Go(func() {
			for i := core; i < len(messages); i += cores {
				if !ed25519.Verify(key, messages[i], signatures[i]) {
					b.Error("a signature does not verify")
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}
