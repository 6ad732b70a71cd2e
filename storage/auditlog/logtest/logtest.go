// Package logtest builds audit logs in memory, right ones and wrong ones, for
// the tests of other packages. It is never linked into a program.
package logtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
)

// Log is a log of the test registry's Kernel. Its event i has the time Start
// plus i seconds, where the caller does not say otherwise.
type Log struct {
	*registrytest.Fixture
	Start  envelope.Time
	Key    signer.Signer // the event key that event 0 delegates
	Leaves [][]byte
	Hash   envelope.Digest // of the last event
}

// New is a valid log of this many events, at least one. It panics on a fault
// of its own, as does all here.
func New(events int) *Log {
	start := must(envelope.ParseTime("2026-06-01T00:00:00Z"))
	l := &Log{Fixture: registrytest.New(start), Start: start, Key: registrytest.Key(signer.Ed25519)}
	l.Delegate(l.Key, l.Audit())
	for i := len(l.Leaves); i < events; i++ {
		l.Append(l.Key, auditlog.UpgradeCreated, auditlog.Data{"n": int64(i)})
	}
	return l
}

// Fork is a log of its own that shares the first events.
func (l *Log) Fork(events int) *Log {
	fork := *l
	fork.Leaves, fork.Hash = slices.Clone(l.Leaves[:events]), HashOf(l.Leaves[events-1])
	return &fork
}

// Audit is the Kernel's audit key.
func (l *Log) Audit() signer.Signer { return l.Signers[registrytest.KernelAudit] }

// Delegation is the base64 of an event-key envelope for key, valid for a day
// from Start.
func (l *Log) Delegation(key, by signer.Signer) string {
	env := must(auditlog.SealDelegation(context.Background(), by, auditlog.Delegation{
		EventKeyID: envelope.KeyID(key.Public().KeyID()), Instance: "gateway-1", KernelID: registrytest.KernelID,
		NotBefore: l.Start, NotAfter: l.Start.Add(auditlog.MaxEventKeySeconds), PublicKey: key.Public().DER(),
	}))
	return base64.StdEncoding.EncodeToString(env.Bytes())
}

// Delegate appends the event that introduces key.
func (l *Log) Delegate(key, by signer.Signer) {
	l.Append(key, auditlog.KeyDelegated, auditlog.Data{auditlog.DataDelegation: l.Delegation(key, by)})
}

// Append appends the next event.
func (l *Log) Append(key signer.Signer, eventType string, data auditlog.Data) {
	e := l.Next()
	e.Type, e.Data = eventType, data
	l.Put(key, e)
}

// Next is an event that may stand next, to be put as it is or changed.
func (l *Log) Next() auditlog.Event {
	n := int64(len(l.Leaves))
	return auditlog.Event{Type: auditlog.UpgradeCreated, Seq: n, Time: l.Start.Add(n), KernelID: registrytest.KernelID, PrevHash: l.Hash, Actor: "kernel"}
}

// Put signs and appends an event, whatever it says.
func (l *Log) Put(key signer.Signer, e auditlog.Event) {
	env := must(auditlog.SealEvent(context.Background(), key, e))
	l.Leaves, l.Hash = append(l.Leaves, env.Bytes()), env.PayloadDigest()
}

// Checkpoint is the signed note over the first events.
func (l *Log) Checkpoint(events int) string {
	return must(auditlog.SignCheckpoint(context.Background(), l.Audit(), registrytest.KernelID, int64(events), Root(l.Leaves[:events])))
}

// File is the export of these leaves under a checkpoint, which need not fit.
func (l *Log) File(checkpoint string, leaves [][]byte) []byte {
	h := must(history.NewHeader(registrytest.KernelID, l.Entries, checkpoint))
	h.Size = int64(len(leaves))
	var out bytes.Buffer
	if err := history.Write(&out, h, All(leaves)); err != nil {
		panic(fmt.Errorf("logtest: %w", err))
	}
	return out.Bytes()
}

// All yields the leaves.
func All(leaves [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range leaves {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

// HashOf is the hash of a leaf's event.
func HashOf(leaf []byte) envelope.Digest {
	_, env, err := auditlog.ParseLeaf(leaf)
	return must(env, err).PayloadDigest()
}

// Root is the RFC 6962 root over the leaves, by golang.org/x/mod/sumdb/tlog.
func Root(leaves [][]byte) tlog.Hash {
	return must(tlog.TreeHash(int64(len(leaves)), Hashes(leaves)))
}

// Hashes reads the stored hashes of the tree over the leaves.
func Hashes(leaves [][]byte) tlog.HashReader {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = stored[index]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		stored = append(stored, must(tlog.StoredHashes(int64(i), leaf, reader))...)
	}
	return reader
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Errorf("logtest: %w", err))
	}
	return v
}
