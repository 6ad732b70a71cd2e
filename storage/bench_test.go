package storage

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

const benchWriters = 256

// BenchmarkAppend is events a second by 256 writers at once, and the ratio to
// the same inserts, in the same transactions, without chain and signature.
func BenchmarkAppend(b *testing.B) {
	const events = 40 * benchWriters
	var chained, bare time.Duration
	n := 0
	for b.Loop() {
		chained += appendAll(b, openBench(b), events, func(tx workflow.Tx) error {
			_, err := tx.AppendEvent(benchEvent())
			return err
		})
		bare += appendAll(b, openBench(b), events, bareInserts(b))
		n += events
	}
	b.ReportMetric(float64(n)/chained.Seconds(), "events/s")
	b.ReportMetric(bare.Seconds()/chained.Seconds(), "of-bare-inserts")
}

func benchEvent() workflow.EventDraft {
	return workflow.EventDraft{
		Type: auditlog.ApprovalSubmitted, UpgradeID: "0b7f1d5e-3c1a-4c57-9d0e-000000000001", Actor: "ryan",
		Data: auditlog.Data{auditlog.DataRecordDigest: envelope.Digest{}.String()},
	}
}

// benchStore knows its file.
type benchStore struct {
	*SQLite
	path string
}

func openBench(b *testing.B) benchStore {
	b.Helper()
	path := filepath.Join(b.TempDir(), "bench.db")
	s, err := OpenSQLite(context.Background(), path, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return benchStore{s, path}
}

// appendAll has 256 writers call Update with f, events times in all.
func appendAll(b *testing.B, s benchStore, events int, f func(workflow.Tx) error) time.Duration {
	b.Helper()
	start := time.Now()
	var group sync.WaitGroup
	for range benchWriters {
		group.Go(func() {
			for range events / benchWriters {
				if err := s.Update(context.Background(), f); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// bareInserts inserts the rows that an event needs, made beforehand.
func bareInserts(b *testing.B) func(workflow.Tx) error {
	b.Helper()
	env, err := auditlog.SealEvent(context.Background(), registrytest.Key(signer.Ed25519), auditlog.Event{
		Actor: "ryan", Data: benchEvent().Data, KernelID: registrytest.KernelID, Seq: 1 << 20, Time: envelope.TimeOf(time.Now()), Type: auditlog.ApprovalSubmitted, UpgradeID: benchEvent().UpgradeID,
	})
	if err != nil {
		b.Fatal(err)
	}
	leaf, hash := env.Bytes(), tlog.RecordHash(env.Bytes())
	var seq int64 // only the writer's goroutine calls
	return func(tx workflow.Tx) error {
		w := tx.(*writer)
		if err := w.insert("events (seq, hash, upgrade_id, leaf)", 4, []any{seq, env.PayloadDigest().String(), string(benchEvent().UpgradeID), leaf}); err != nil {
			return err
		}
		var rows []any
		for index := tlog.StoredHashIndex(0, seq); index < tlog.StoredHashIndex(0, seq+1); index++ {
			rows = append(rows, index, hash[:])
		}
		seq++
		return w.insert("tree (idx, hash)", 2, rows)
	}
}
