package storage

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow"
)

// BenchmarkLongLog is a log of 200,000 events, or of KERNELGATE_BENCH_EVENTS:
// how long it takes to open, appending to it against an empty one, and how the
// whole of it is verified: events a second, the ratio to bare Ed25519
// verifications on all cores, and the most memory that was in use.
func BenchmarkLongLog(b *testing.B) {
	size := 200_000
	if text := os.Getenv("KERNELGATE_BENCH_EVENTS"); text != "" {
		var err error
		if size, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	long := openBench(b)
	fixture := registrytest.New(envelope.TimeOf(time.Now()))
	introduce(b, long, fixture)
	fill(b, long, size-1)
	const events = 10 * benchWriters
	appendOne := func(tx workflow.Tx) error {
		_, err := tx.AppendEvent(benchEvent())
		return err
	}
	var opened, toLong, toEmpty time.Duration
	var v verification
	rounds := 0
	for b.Loop() {
		opened += timeToOpen(b, long.path, int64(size))
		toLong += appendAll(b, long, events, appendOne)
		toEmpty += appendAll(b, openBench(b), events, appendOne)
		v.of(b, long, fixture)
		rounds++
	}
	b.ReportMetric(opened.Seconds()/float64(rounds), "s-to-open")
	b.ReportMetric(toEmpty.Seconds()/toLong.Seconds(), "of-empty-log")
	b.ReportMetric(float64(v.events)/v.took.Seconds(), "verified/s")
	b.ReportMetric(v.bare.Seconds()/v.took.Seconds(), "of-bare-ed25519")
	b.ReportMetric(v.bareCPU.Seconds()/v.cpu.Seconds(), "of-bare-processor")
	b.ReportMetric(float64(v.peak>>20), "MiB-in-use")
}

// introduce makes an event key that the registry's Kernel delegates.
func introduce(b *testing.B, s benchStore, fixture *registrytest.Fixture) {
	b.Helper()
	key, now := registrytest.Key(signer.Ed25519), envelope.TimeOf(time.Now())
	env, err := auditlog.SealDelegation(context.Background(), fixture.Signers[registrytest.KernelAudit], auditlog.Delegation{
		EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: "gateway-1", KernelID: registrytest.KernelID,
		NotBefore: now, NotAfter: now.Add(auditlog.MaxEventKeySeconds), PublicKey: key.Public().DER(),
	})
	if err != nil {
		b.Fatal(err)
	}
	s.SetEventKey(registrytest.KernelID, key)
	err = s.Update(context.Background(), func(tx workflow.Tx) error {
		_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.KeyDelegated, Actor: "kernel", Data: auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())}})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// fill appends events many in one transaction, the quickest way to a long log.
func fill(b *testing.B, s benchStore, size int) {
	b.Helper()
	for done := 0; done < size; done += 10_000 {
		err := s.Update(context.Background(), func(tx workflow.Tx) error {
			for range min(10_000, size-done) {
				if _, err := tx.AppendEvent(benchEvent()); err != nil {
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

// timeToOpen is until the log's size and root are known.
func timeToOpen(b *testing.B, path string, size int64) time.Duration {
	b.Helper()
	start := time.Now()
	again, err := OpenSQLite(context.Background(), path, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	if err := again.View(context.Background(), func(r workflow.Reader) error {
		n, err := r.LogSize()
		if err == nil && n < size {
			b.Errorf("%d events", n)
		}
		if err == nil {
			_, err = r.TreeRoot(n)
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := again.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

// verification is whole logs verified, and what bare Ed25519 takes for as many.
type verification struct {
	events     int64
	took, bare time.Duration
	// The same in processor time, which a busy machine disturbs less.
	cpu, bareCPU time.Duration
	peak         uint64 // bytes in use that were not before
}

func (v *verification) of(b *testing.B, s benchStore, fixture *registrytest.Fixture) {
	b.Helper()
	claim, size := history.Claim{Registry: fixture.Entries}, int64(0)
	err := s.View(context.Background(), func(r workflow.Reader) (err error) {
		if size, err = r.LogSize(); err != nil {
			return err
		}
		root, err := r.TreeRoot(size)
		if err != nil {
			return err
		}
		claim.Checkpoint, err = auditlog.SignCheckpoint(context.Background(), fixture.Signers[registrytest.KernelAudit], registrytest.KernelID, size, root)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	bare := newBareVerify(b, s, min(size, 5_000))
	before := inUse()
	var spent, spentCPU time.Duration // of the machine, by the comparison
	var compared int64
	progress := func(done, _ int64) {
		v.peak = max(v.peak, inUse()-min(before, inUse()))
		if done >= compared*10 { // now and then, since a busy machine changes its pace
			start := processorTime(b)
			spent += bare.once(b)
			spentCPU += processorTime(b) - start
			compared += int64(len(bare.messages))
		}
	}
	start, startCPU := time.Now(), processorTime(b)
	if _, err := history.Verify(context.Background(), history.Trust{Root: fixture.Root, Progress: progress}, claim, s.Leaves(context.Background(), size)); err != nil {
		b.Fatal(err)
	}
	v.took += time.Since(start) - spent
	v.cpu += processorTime(b) - startCPU - spentCPU
	v.bare += time.Duration(float64(spent) * float64(size) / float64(compared))
	v.bareCPU += time.Duration(float64(spentCPU) * float64(size) / float64(compared))
	v.events += size
}

// processorTime is what this process has used of all cores.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// inUse is the heap, what is garbage by now included.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bareVerify is signatures of the log, to be verified on all cores and nothing else.
type bareVerify struct {
	key                  ed25519.PublicKey
	messages, signatures [][]byte
}

func newBareVerify(b *testing.B, s benchStore, events int64) *bareVerify {
	b.Helper()
	v := &bareVerify{key: s.eventKey().signer.Public().Key().(ed25519.PublicKey)}
	for leaf, err := range s.Leaves(context.Background(), events) {
		if err != nil {
			b.Fatal(err)
		}
		_, env, err := auditlog.ParseLeaf(leaf)
		if err != nil {
			b.Fatal(err)
		}
		v.messages, v.signatures = append(v.messages, env.PAE()), append(v.signatures, env.Signatures[0].Sig)
	}
	return v
}

func (v *bareVerify) once(b *testing.B) time.Duration {
	b.Helper()
	start := time.Now()
	var group sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		group.Go(func() {
			for i := core; i < len(v.messages); i += cores {
				if !ed25519.Verify(v.key, v.messages[i], v.signatures[i]) {
					b.Error("a signature does not verify")
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}
