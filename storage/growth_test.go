package storage_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow"
)

// sizesVariable names the numbers of upgrades that BenchmarkGrowth fills a
// database with, such as 10000,100000,1000000.
const sizesVariable = "KERNELGATE_BENCH_SIZES"

func sizes(b *testing.B) (out []int) {
	b.Helper()
	text := os.Getenv(sizesVariable)
	if text == "" {
		text = "1000,20000"
	}
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

func databases(b *testing.B) map[string]func() storagetest.Open {
	b.Helper()
	return map[string]func() storagetest.Open{
		"sqlite":   func() storagetest.Open { return sqliteAt(filepath.Join(b.TempDir(), "growth.db")) },
		"postgres": func() storagetest.Open { return postgresAt(storagetest.Shared(b).Database(b)) },
	}
}

func benchmarked(b *testing.B, open storagetest.Open) storagetest.Store {
	b.Helper()
	s, err := open(time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return s
}

func upgradeID(i int) envelope.UUID {
	return envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-%012d", i))
}

// grow adds upgrades, each with a record and an event; of a hundred one waits
// for approvals.
func grow(b *testing.B, s storagetest.Store, from, to int) {
	b.Helper()
	now := envelope.TimeOf(time.Now())
	body := make([]byte, 1000)
	for start := from; start < to; start += 1000 {
		err := s.Update(context.Background(), func(tx workflow.Tx) error {
			for i := start; i < min(to, start+1000); i++ {
				u := workflow.Upgrade{ID: upgradeID(i), Target: "web", Type: "code", State: workflow.StateCompleted, ProposedBy: "ops", CreatedAt: now.Add(int64(i)),
					UpdatedAt: now, ExpiresAt: now, Intent: "Open on Mondays"}
				if i%100 == 0 {
					u.State = workflow.StatePendingApproval
				}
				if err := tx.PutUpgrade(u); err != nil {
					return err
				}
				copy(body, strconv.Itoa(i)+".")
				if err := step(tx, i, slices.Clone(body)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func step(tx workflow.Tx, i int, body []byte) error {
	if _, err := tx.AddRecord(workflow.Record{Digest: envelope.DigestOf(body), UpgradeID: upgradeID(i), Kind: "approval", Person: "ryan", Body: body}); err != nil {
		return err
	}
	_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.ApprovalSubmitted, UpgradeID: upgradeID(i), Actor: "ryan", Data: auditlog.Data{auditlog.DataRecordDigest: envelope.Digest{}.String()}})
	return err
}

// approve is what the engine does to the database for an approval.
func approve(s storagetest.Store, i int, body []byte) error {
	return s.Update(context.Background(), func(tx workflow.Tx) error {
		u, err := tx.Upgrade(upgradeID(i))
		if err != nil {
			return err
		}
		if _, err := tx.Records(u.ID); err != nil {
			return err
		}
		if err := step(tx, i, body); err != nil {
			return err
		}
		return tx.PutUpgrade(u)
	})
}

// approvals has 64 callers approve, n times in all, by one of the stores each.
func approvals(b *testing.B, n, upgrades int, stores ...storagetest.Store) (perSecond float64) {
	b.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	for caller := range 64 {
		group.Go(func() {
			body := make([]byte, 1000)
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				copy(body, fmt.Sprint(start.UnixNano(), " ", i, "."))
				if err := approve(stores[caller%len(stores)], rand.IntN(upgrades), body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// p99 of a look, in milliseconds.
func p99(b *testing.B, s storagetest.Store, look func(workflow.Reader) error) float64 {
	b.Helper()
	took := make([]time.Duration, 300)
	for i := range took {
		start := time.Now()
		if err := s.View(context.Background(), look); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Microseconds()) / 1000
}

// BenchmarkGrowth is what things cost with so many upgrades in the database:
// approvals a second as the database sees them, by 64 callers, and the 99th of
// a hundred looks at what waits, at one upgrade, and for a text.
func BenchmarkGrowth(b *testing.B) {
	for name, open := range databases(b) {
		b.Run(name, func(b *testing.B) {
			s := benchmarked(b, open())
			have := 0
			for _, size := range sizes(b) {
				began := time.Now()
				grow(b, s, have, size)
				filled := time.Since(began)
				b.Run(strconv.Itoa(size), func(b *testing.B) {
					var rate float64
					for b.Loop() {
						rate = approvals(b, 3000, size, s)
					}
					b.ReportMetric(float64(size-have)/filled.Seconds(), "filled/s")
					b.ReportMetric(rate, "approvals/s")
					b.ReportMetric(p99(b, s, func(r workflow.Reader) error {
						_, _, err := r.Upgrades(workflow.Page{States: []workflow.State{workflow.StatePendingApproval}, Limit: 100})
						return err
					}), "p99-ms-pending")
					b.ReportMetric(p99(b, s, func(r workflow.Reader) error {
						id := upgradeID(rand.IntN(size))
						if _, err := r.Upgrade(id); err != nil {
							return err
						}
						if _, err := r.Records(id); err != nil {
							return err
						}
						_, err := r.UpgradeEvents(id)
						return err
					}), "p99-ms-one")
					b.ReportMetric(p99(b, s, func(r workflow.Reader) error {
						n, err := r.LogSize()
						if err != nil {
							return err
						}
						_, err = r.InclusionProof(rand.Int64N(n), n)
						return err
					}), "p99-ms-proof")
				})
				have = size
			}
		})
	}
}

// BenchmarkGateways is approvals a second, as the database sees them, by two
// gateways' stores on one PostgreSQL, against one.
func BenchmarkGateways(b *testing.B) {
	url := storagetest.Shared(b).Database(b)
	one, two := benchmarked(b, postgresAt(url)), benchmarked(b, postgresAt(url))
	grow(b, one, 0, 1000)
	var alone, both float64
	n := 0.0
	for b.Loop() {
		alone += approvals(b, 3000, 1000, one)
		both += approvals(b, 3000, 1000, one, two)
		n++
	}
	b.ReportMetric(alone/n, "approvals/s-one")
	b.ReportMetric(both/n, "approvals/s-two")
	b.ReportMetric(both/alone, "two-of-one")
}
