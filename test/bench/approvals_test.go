package bench

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/workflow"
)

const clients = 64

// size is a number that the environment may make larger.
func size(b *testing.B, name string, small int) int {
	text := os.Getenv(name)
	if text == "" {
		return small
	}
	n, err := strconv.Atoi(text)
	check(b, err)
	return n
}

// at64 has 64 callers do the jobs 0 to n-1, and tells how long each took.
func at64(n int, do func(i int) error) (took []time.Duration, all time.Duration, failed error) {
	took = make([]time.Duration, n)
	var next atomic.Int64
	var mu sync.Mutex
	var group sync.WaitGroup
	start := time.Now()
	for range clients {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				begin := time.Now()
				if err := do(i); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	group.Wait()
	all = time.Since(start)
	slices.Sort(took)
	return took, all, failed
}

func p99(sorted []time.Duration) float64 {
	return float64(sorted[len(sorted)*99/100].Microseconds()) / 1000
}

// processor is the processor time that this process has used.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// signed has people sign n manifests, and each of them each: the
// approvals of one person stand together.
func (w *world) signed(first, n int, approvers ...string) (manifests, approvals []envelope.Envelope) {
	manifests, approvals = make([]envelope.Envelope, n), make([]envelope.Envelope, n*len(approvers))
	_, _, err := at64(n, func(i int) error {
		manifests[i] = w.manifest(first + i)
		for k, who := range approvers {
			approvals[k*n+i] = w.approval(first+i, manifests[i].PayloadDigest(), who)
		}
		return nil
	})
	check(w.b, err)
	return manifests, approvals
}

// open proposes upgrades and opens them for approvals.
func (w *world) open(first int, manifests []envelope.Envelope) {
	_, _, err := at64(len(manifests), func(i int) error {
		if _, err := w.engine.Submit(context.Background(), workflow.KindManifest, manifests[i]); err != nil {
			return err
		}
		_, err := w.engine.RequestApprovals(context.Background(), uuid(first+i), "ops")
		return err
	})
	check(w.b, err)
}

// submit sends records over HTTP.
func (w *world) submit(records []envelope.Envelope) (took []time.Duration, all time.Duration) {
	took, all, err := at64(len(records), func(i int) error {
		_, err := w.client.Submit(context.Background(), records[i])
		return err
	})
	check(w.b, err)
	return took, all
}

// BenchmarkApprovals is verified, durable approvals a second over HTTP by 64
// clients on connections that stay, the clients' own work included but for
// people's signatures, which are made before: one by each of two approvers of
// each upgrade, with ECDSA P-256 and Ed25519. The ratio is to bare commits of one row by as many writers in the
// same database.
func BenchmarkApprovals(b *testing.B) {
	w := newWorld(b, false)
	n := size(b, "KERNELGATE_BENCH_APPROVALS", 4000)
	first := 1
	var took []time.Duration
	var all, bare, used time.Duration
	for b.Loop() {
		b.StopTimer()
		manifests, approvals := w.signed(first, n/2, "sec-eng", "ryan")
		w.open(first, manifests)
		b.StartTimer()
		used = processor(b)
		took, all = w.submit(approvals)
		used = processor(b) - used
		var err error
		_, bare, err = at64(n, func(i int) error {
			return w.store.Update(context.Background(), func(tx workflow.Tx) error { return tx.PutCursor(strconv.Itoa(i), int64(first)) })
		})
		check(b, err)
		first += n / 2
	}
	b.ReportMetric(float64(n)/all.Seconds(), "approvals/s")
	b.ReportMetric(p99(took), "p99-ms")
	b.ReportMetric(float64(used.Microseconds())/float64(n), "processor-us/approval")
	b.ReportMetric(bare.Seconds()/all.Seconds(), "of-bare-commits")
}

// BenchmarkUpgrades is upgrades a second from manifest to applied, at as many
// targets, three approvals each over HTTP, with the Kernel's keys in a SoftHSM2
// token. People's signatures are made before.
func BenchmarkUpgrades(b *testing.B) {
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			b.Fatal(err)
		}
		b.Skipf("SoftHSM2: %v", err)
	}
	w := newWorld(b, true)
	n := size(b, "KERNELGATE_BENCH_UPGRADES", 500)
	first := 1
	var all, used time.Duration
	for b.Loop() {
		b.StopTimer()
		manifests, signed := w.signed(first, n, "sec-eng", "ryan", "divlead-2")
		approvals := make([]envelope.Envelope, len(signed))
		for i, env := range signed {
			approvals[i%n*3+i/n] = env // those of one upgrade one after the other
		}
		b.StartTimer()
		start := time.Now()
		used = processor(b)
		w.open(first, manifests)
		w.submit(approvals)
		for w.applied() < first+n-1 {
			if time.Since(start) > 5*time.Minute {
				b.Fatalf("%d of %d are applied", w.applied(), first+n-1)
			}
			time.Sleep(5 * time.Millisecond)
		}
		all, used = time.Since(start), processor(b)-used
		first += n
	}
	b.ReportMetric(float64(n)/all.Seconds(), "upgrades/s")
	b.ReportMetric(float64(used.Microseconds())/float64(n), "processor-us/upgrade")
}

func (w *world) applied() int {
	w.depot.mu.Lock()
	defer w.depot.mu.Unlock()
	return len(w.depot.live)
}

// BenchmarkPending is a page of what waits for approvals among many upgrades.
func BenchmarkPending(b *testing.B) {
	w := newWorld(b, false)
	n := size(b, "KERNELGATE_BENCH_LISTED", 100000)
	now := envelope.TimeOf(time.Now())
	for done := 0; done < n; done += 1000 {
		check(b, w.store.Update(b.Context(), func(tx workflow.Tx) error {
			for i := done; i < min(n, done+1000); i++ {
				state := workflow.StateCompleted
				if i%100 == 0 {
					state = workflow.StatePendingApproval
				}
				u := workflow.Upgrade{ID: uuid(1 + i), Target: "web", Type: "code", State: state, ManifestDigest: w.Root, ProposedBy: "ops",
					CreatedAt: now.Add(int64(i - n)), UpdatedAt: now, ExpiresAt: now.Add(86400), Patch: w.patch, Intent: "listed"}
				if err := tx.PutUpgrade(u); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		check(b, w.store.View(b.Context(), func(r workflow.Reader) error {
			list, _, err := r.Upgrades(workflow.Page{States: []workflow.State{workflow.StatePendingApproval}, Limit: 100})
			if len(list) != 100 {
				b.Fatalf("%d are listed", len(list))
			}
			return err
		}))
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(p99(took), "p99-ms")
}
