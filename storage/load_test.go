package storage_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow"
)

// soakVariable names how long TestGatewaysUnderFaults goes on, such as 10m;
// without it, a few seconds.
const soakVariable = "KERNELGATE_SOAK"

// operation is one call about an upgrade: it raises the row's version by one,
// with a record and an event of that version, or reads the version.
type operation struct {
	upgrade envelope.UUID
	raise   bool
}

// versions is the model: a number for each upgrade, raised by one at a time. An
// outcome that is not known is an output of -1, which may have happened or not.
var versions = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		parts := map[envelope.UUID][]porcupine.Operation{}
		for _, op := range all {
			parts[op.Input.(operation).upgrade] = append(parts[op.Input.(operation).upgrade], op)
		}
		var out [][]porcupine.Operation
		for _, part := range parts {
			out = append(out, part)
		}
		return out
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		version, got := state.(int64), output.(int64)
		if input.(operation).raise {
			version++
		}
		return got == -1 || got == version, version
	},
}

// rig is two gateways' stores on one server, each by way of the proxy.
type rig struct {
	*registrytest.Fixture
	stores []*storage.Postgres
	start  time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	acked   map[envelope.UUID][]int64 // versions that were acknowledged
	unknown int
}

func newRig(t *testing.T, url string) *rig {
	r := &rig{Fixture: registrytest.New(envelope.TimeOf(time.Now())), start: time.Now(), acked: map[envelope.UUID][]int64{}}
	for i := range 2 {
		s := keyed(t, url)
		key := registrytest.Key(signer.Ed25519)
		s.SetEventKey(registrytest.KernelID, key)
		now := envelope.TimeOf(time.Now())
		env, err := auditlog.SealDelegation(t.Context(), r.Signers[registrytest.KernelAudit], auditlog.Delegation{
			EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: fmt.Sprint("gateway-", i), KernelID: registrytest.KernelID,
			NotBefore: now.Add(-60), NotAfter: now.Add(80000), PublicKey: key.Public().DER(),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), func(tx workflow.Tx) error {
			if i == 0 {
				if err := tx.AddRegistry(1, r.Entries[0]); err != nil {
					return err
				}
			}
			_, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.KeyDelegated, Actor: "kernel", Data: auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(env.Bytes())}})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		r.stores = append(r.stores, s)
	}
	return r
}

// do runs one operation and notes it. What failed and was not written did not
// happen; what is not known may happen any time later.
func (r *rig) do(client int, s *storage.Postgres, op operation) {
	call := time.Since(r.start).Nanoseconds()
	var version int64
	var err error
	if op.raise {
		err = s.Update(context.Background(), func(tx workflow.Tx) error {
			version, err = raise(tx, op.upgrade)
			return err
		})
	} else {
		err = s.View(context.Background(), func(reader workflow.Reader) error {
			u, err := reader.Upgrade(op.upgrade)
			if version = u.Version; errors.Is(err, workflow.ErrNotFound) {
				err = nil
			}
			return err
		})
	}
	done := time.Since(r.start).Nanoseconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && op.raise:
		r.acked[op.upgrade] = append(r.acked[op.upgrade], version)
	case errors.Is(err, storage.ErrOutcomeUnknown):
		r.unknown++
		version, done = -1, math.MaxInt64
	case err != nil:
		return
	}
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: version, Return: done})
}

// raise is what an engine does with a row: it reads it, writes it, and adds a
// record and an event.
func raise(tx workflow.Tx, id envelope.UUID) (int64, error) {
	u, err := tx.Upgrade(id)
	if err != nil && !errors.Is(err, workflow.ErrNotFound) {
		return 0, err
	}
	u.ID, u.State, u.Version = id, workflow.StateDraft, u.Version+1
	if err := tx.PutUpgrade(u); err != nil {
		return 0, err
	}
	text := fmt.Sprint(id, " ", u.Version)
	added, err := tx.AddRecord(workflow.Record{Digest: envelope.DigestOf([]byte(text)), UpgradeID: id, Kind: "approval", Body: []byte(text)})
	if err == nil && !added {
		err = errors.New("a version was made twice: " + text)
	}
	if err != nil {
		return 0, err
	}
	_, err = tx.AppendEvent(workflow.EventDraft{Type: auditlog.ApprovalSubmitted, UpgradeID: id, Actor: "ryan", Data: auditlog.Data{"version": u.Version}})
	return u.Version, err
}

// Two gateways' stores work under load while connections are cut, before and
// after a COMMIT and anywhere else, and the server is restarted as by a crash:
// what was acknowledged is there, each step once, in an order that explains
// every answer; and the log is one whole chain.
func TestGatewaysUnderFaults(t *testing.T) {
	server := storagetest.New(t)
	cutNext.Store("")
	proxy, url := through(t, server, server.Database(t))
	r := newRig(t, url)
	budget := 8 * time.Second
	if text := os.Getenv(soakVariable); text != "" {
		var err error
		if budget, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now().Add(budget)
	var group sync.WaitGroup
	for client := range 8 {
		group.Go(func() {
			for time.Now().Before(end) {
				id := envelope.UUID(fmt.Sprintf("0b7f1d5e-3c1a-4c57-9d0e-%012d", rand.IntN(5)))
				r.do(client, r.stores[rand.IntN(2)], operation{id, rand.IntN(3) > 0})
			}
		})
	}
	cuts, restarts := 0, 0
	for i := 0; time.Now().Before(end); i++ {
		time.Sleep(time.Duration(100+rand.IntN(200)) * time.Millisecond)
		switch i % 8 {
		case 0, 1, 2:
			cutNext.Store("before")
		case 3, 4, 5:
			cutNext.Store("after")
		case 6:
			proxy.Stop()
			time.Sleep(50 * time.Millisecond)
			if err := proxy.Start(); err != nil {
				t.Fatal(err)
			}
		case 7:
			if err := errors.Join(server.Kill(), server.Run()); err != nil {
				t.Fatal(err)
			}
			restarts++
		}
		cuts++
	}
	group.Wait()
	t.Logf("%d operations, %d of unknown outcome, %d faults, %d restarts", len(r.history), r.unknown, cuts, restarts)
	if restarts == 0 || len(r.history) < 50 {
		t.Error("too little happened to prove anything")
	}
	r.check(t)
}

func (r *rig) check(t *testing.T) {
	t.Helper()
	if verdict := porcupine.CheckOperationsTimeout(versions, r.history, time.Minute); verdict != porcupine.Ok {
		t.Errorf("no order of the operations explains the answers: %s", verdict)
	}
	var total int64
	var size int64
	for _, s := range r.stores {
		if err := s.View(context.Background(), func(reader workflow.Reader) (err error) {
			total = 2 // delegations
			for id, acked := range r.acked {
				u, err := reader.Upgrade(id)
				if err != nil {
					return err
				}
				records, err := reader.Records(id)
				if err != nil || int64(len(records)) != u.Version {
					t.Errorf("%s is at version %d with %d records: %v", id, u.Version, len(records), err)
				}
				seen := map[int64]bool{}
				for _, version := range acked {
					if seen[version] || version > u.Version {
						t.Errorf("%s: version %d was acknowledged twice, or is lost", id, version)
					}
					seen[version] = true
				}
				total += u.Version
			}
			size, err = reader.LogSize()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if size != total {
			t.Errorf("%d events of %d steps", size, total)
		}
	}
	r.verify(t, size)
}

// verify seals the log and judges the whole of it.
func (r *rig) verify(t *testing.T, size int64) {
	t.Helper()
	s := r.stores[0]
	claim := history.Claim{Registry: r.Entries}
	err := s.Update(context.Background(), func(tx workflow.Tx) error {
		root, err := tx.TreeRoot(size)
		if err != nil {
			return err
		}
		claim.Checkpoint, err = auditlog.SignCheckpoint(context.Background(), r.Signers[registrytest.KernelAudit], registrytest.KernelID, size, root)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := history.Verify(context.Background(), history.Trust{Root: r.Root}, claim, s.Leaves(context.Background(), size))
	if err != nil || verdict.EventKeys != 2 {
		t.Errorf("the log: %+v, %v", verdict, err)
	}
}
