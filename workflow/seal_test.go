package workflow_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// slowToken is a guard whose checkpoints take as long as a small token's.
type slowToken struct {
	workflow.Guard
	takes         time.Duration
	busy          atomic.Int32
	overlap, made atomic.Int64
}

func (s *slowToken) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (string, error) {
	if s.busy.Add(1) > 1 {
		s.overlap.Add(1)
	}
	defer s.busy.Add(-1)
	s.made.Add(1)
	time.Sleep(s.takes)
	return s.Guard.SignCheckpoint(ctx, size, root, consistency)
}

const tokenTakes = 70 * time.Millisecond

// slowHouse is a house on such a token, and its load: writers who propose one
// upgrade after the other, and how long each one's event took to be sealed.
func slowHouse(t testing.TB) (*house, *slowToken) {
	h := newHouse(t)
	token := &slowToken{Guard: h.guard, takes: tokenTakes}
	h.guard = token
	h.engine = h.newEngine()
	h.run()
	return h, token
}

func (h *house) sealLatencies(writers, each int) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	var sealed atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			sealed.Store(h.sealedSize())
		}
	}()
	manifests := make([][]envelope.Envelope, writers)
	for w := range writers {
		for range each {
			manifests[w] = append(manifests[w], h.seal("ann", envelope.TypeManifest, h.draft(nil)))
		}
	}
	for _, mine := range manifests {
		group.Go(func() {
			for _, env := range mine {
				if _, err := h.engine.Submit(context.Background(), workflow.KindManifest, env); err != nil {
					h.t.Errorf("submit: %v", err)
					return
				}
				begin, size := time.Now(), h.logSize()
				for sealed.Load() < size && time.Since(begin) < 10*time.Second {
					time.Sleep(time.Millisecond)
				}
				mu.Lock()
				all = append(all, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(all)
	return all
}

func (h *house) logSize() (size int64) {
	_ = h.store.View(context.Background(), func(r workflow.Reader) (err error) { size, err = r.LogSize(); return err })
	return size
}

func (h *house) sealedSize() (size int64) {
	_ = h.store.View(context.Background(), func(r workflow.Reader) (err error) { _, size, err = r.Checkpoint(); return err })
	return size
}

// The sealing keeps a slow token's pace: never two checkpoints at once, and the
// next as soon as the last one is there.
func TestSealKeepsTheTokensPace(t *testing.T) {
	h, token := slowHouse(t)
	all := h.sealLatencies(8, 8)
	h.stop()
	if token.overlap.Load() > 0 {
		t.Errorf("%d checkpoints were asked for while one was made", token.overlap.Load())
	}
	// BenchmarkSealed measures; here a busy machine under the race detector must do.
	if worst := all[len(all)-1]; worst > 5*time.Second {
		t.Errorf("an event was sealed after %s", worst)
	}
	if h.sealedSize() != h.logSize() {
		t.Errorf("%d of %d events are sealed", h.sealedSize(), h.logSize())
	}
}

// Where nothing was logged there is no new checkpoint.
func TestNoCheckpointWithoutNews(t *testing.T) {
	h, token := slowHouse(t)
	h.propose(h.draft(nil))
	deadline := time.Now().Add(10 * time.Second)
	for h.sealedSize() < h.logSize() && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	before := token.made.Load()
	time.Sleep(1500 * time.Millisecond)
	if made := token.made.Load(); made != before {
		t.Errorf("%d checkpoints of a log that did not grow", made-before)
	}
}

// BenchmarkSealed is how long 64 writers' events take from committed to sealed,
// on a token that takes 70 ms for a signature.
func BenchmarkSealed(b *testing.B) {
	h, token := slowHouse(b)
	var all []time.Duration
	for b.Loop() {
		all = h.sealLatencies(64, 20)
	}
	b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(float64(h.sealedSize())/float64(token.made.Load()), "events/checkpoint")
}
