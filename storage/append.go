package storage

import (
	"context"
	"database/sql"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// tail is the end of the log while one transaction writes: an event is chained
// at once, and signed beside what the transaction does meanwhile. Its rows are
// written before the commit, or before somebody reads the log.
type tail struct {
	head
	pending []*pendingEvent
	checks  map[envelope.KeyID]*signer.Together // of the signatures, by event key
	hashes  map[int64]tlog.Hash                 // of the tree, by tlog index, as far as they were needed
}

func newTail(h head) tail {
	return tail{head: h, checks: map[envelope.KeyID]*signer.Together{}, hashes: map[int64]tlog.Hash{}}
}

// pendingEvent is an event whose signature is being made.
type pendingEvent struct {
	workflow.StoredEvent
	env      envelope.Envelope
	leafHash tlog.Hash
	key      signer.Signer
	check    *signer.Together
	err      error
	signed   sync.WaitGroup
}

// sign is called by one of the goroutines that sign for the whole store: an
// event to each, and stacks grow anew for each.
func (p *pendingEvent) sign() {
	defer p.signed.Done()
	p.err = auditlog.SignEvent(context.Background(), p.key, &p.env)
	if p.err == nil {
		p.err = p.check.Add(p.env.PAE(), p.env.Signatures[0].Sig)
	}
	if p.err == nil {
		p.Leaf = auditlog.Leaf(p.env)
		p.leafHash = auditlog.LeafHash(p.Leaf)
	}
}

// AppendEvent chains one event. It is signed and stored when the transaction
// commits, so that what it returns has no Leaf yet.
func (w *writer) AppendEvent(draft workflow.EventDraft) (workflow.StoredEvent, error) {
	key := w.store.eventKey()
	if key.signer == nil {
		return workflow.StoredEvent{}, ErrNoEventKey
	}
	now := envelope.TimeOf(w.store.now())
	if now.Before(w.tail.time) {
		now = w.tail.time // a clock that steps back never turns the log's time
	}
	event := auditlog.Event{
		Actor: draft.Actor, Data: draft.Data, KernelID: key.kernelID, KeyID: envelope.KeyID(key.signer.Public().KeyID()),
		PrevHash: w.tail.hash, Seq: w.tail.size, Time: now, Type: draft.Type, UpgradeID: draft.UpgradeID,
	}
	env, err := auditlog.DraftEvent(key.signer.Public(), event)
	if err != nil {
		return workflow.StoredEvent{}, err
	}
	check, err := w.tail.check(key.signer)
	if err != nil {
		return workflow.StoredEvent{}, err
	}
	stored := workflow.StoredEvent{Seq: event.Seq, Event: event, Hash: env.PayloadDigest()}
	p := &pendingEvent{StoredEvent: stored, env: env, key: signer.Unverified(key.signer), check: check}
	p.signed.Add(1)
	w.store.toSign <- p
	w.tail.pending = append(w.tail.pending, p)
	w.tx.wrote = true
	w.tail.head = head{size: event.Seq + 1, hash: stored.Hash, time: now}
	return stored, nil
}

// check is where the signatures of an event key are checked together.
func (t *tail) check(s signer.Signer) (check *signer.Together, err error) {
	id := envelope.KeyID(s.Public().KeyID())
	check, known := t.checks[id]
	if !known {
		check, err = signer.NewTogether(s.Public())
		t.checks[id] = check
	}
	return check, err
}

// flush writes what is pending, and refuses the transaction where one of its
// signatures does not verify (docs/decisions/0004-signatures-checked-together.md).
func (w *writer) flush() error {
	if err := w.writeEvents(len(w.tail.pending)); err != nil {
		return err
	}
	for _, check := range w.tail.checks {
		if err := check.Verify(); err != nil {
			return err
		}
	}
	return nil
}

// writeEvents writes the first n events that are pending, with their part of
// the tree. That their signatures verify is flush's to find out.
func (w *writer) writeEvents(n int) error {
	events, hashes := make([]any, 0, 4*n), make([]any, 0, 5*n)
	for _, p := range w.tail.pending[:n] {
		if p.signed.Wait(); p.err != nil {
			return p.err
		}
		grown, err := tlog.StoredHashesForRecordHash(p.Seq, p.leafHash, tlog.HashReaderFunc(w.knownHashes))
		if err != nil {
			return err
		}
		events = append(events, p.Seq, p.Hash.String(), string(p.Event.UpgradeID), p.Leaf)
		first := tlog.StoredHashIndex(0, p.Seq)
		for i, h := range grown {
			w.tail.hashes[first+int64(i)] = h
			hashes = append(hashes, first+int64(i), h[:])
		}
	}
	w.tail.pending = w.tail.pending[n:]
	if err := w.insert("events (seq, hash, upgrade_id, leaf)", 4, events); err != nil {
		return err
	}
	return w.insert("tree (idx, hash)", 2, hashes)
}

// knownHashes are the tree's hashes of this transaction, or of the database.
func (w *writer) knownHashes(indexes []int64) ([]tlog.Hash, error) {
	var unknown []int64
	for _, index := range indexes {
		if _, known := w.tail.hashes[index]; !known {
			unknown = append(unknown, index)
		}
	}
	read, err := w.reader.ReadHashes(unknown)
	if err != nil {
		return nil, err
	}
	for i, index := range unknown {
		w.tail.hashes[index] = read[i]
	}
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = w.tail.hashes[index]
	}
	return out, nil
}

// insertRows is how many rows one statement inserts.
const insertRows = 32

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// insertInto inserts rows that stand one after the other in values, many in one
// statement: most of an insert's time is the way to the database and back.
func insertInto(ctx context.Context, tx execer, into string, columns int, values []any) error {
	for len(values) > 0 {
		n := min(insertRows, len(values)/columns)
		if n < insertRows {
			n = 1 // two statements in all, which stay prepared
		}
		statement := "INSERT INTO " + into + " VALUES " + tuples(n, columns)
		if _, err := tx.ExecContext(ctx, statement, values[:n*columns]...); err != nil {
			return err
		}
		values = values[n*columns:]
	}
	return nil
}

func (w *writer) insert(into string, columns int, values []any) error {
	return insertInto(w.ctx, w.tx, into, columns, values)
}

// Who reads the log in a write transaction reads what it appended, too.

// LogSize implements workflow.Reader.
func (w *writer) LogSize() (int64, error) { return w.tail.size, nil }

// ReadHashes implements tlog.HashReader.
func (w *writer) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	return flushed(w, func() ([]tlog.Hash, error) { return w.reader.ReadHashes(indexes) })
}

// TreeRoot implements workflow.Reader.
func (w *writer) TreeRoot(size int64) (tlog.Hash, error) {
	return flushed(w, func() (tlog.Hash, error) { return w.reader.TreeRoot(size) })
}

// InclusionProof implements workflow.Reader.
func (w *writer) InclusionProof(index, size int64) ([][]byte, error) {
	return flushed(w, func() ([][]byte, error) { return w.reader.InclusionProof(index, size) })
}

// ConsistencyProof implements workflow.Reader.
func (w *writer) ConsistencyProof(oldSize, newSize int64) ([][]byte, error) {
	return flushed(w, func() ([][]byte, error) { return w.reader.ConsistencyProof(oldSize, newSize) })
}

// Events implements workflow.Reader.
func (w *writer) Events(from int64, limit int) ([]workflow.StoredEvent, error) {
	return flushed(w, func() ([]workflow.StoredEvent, error) { return w.reader.Events(from, limit) })
}

// UpgradeEvents implements workflow.Reader.
func (w *writer) UpgradeEvents(id envelope.UUID) ([]workflow.StoredEvent, error) {
	return flushed(w, func() ([]workflow.StoredEvent, error) { return w.reader.UpgradeEvents(id) })
}

func flushed[T any](w *writer, read func() (T, error)) (T, error) {
	if err := w.flush(); err != nil {
		var none T
		return none, err
	}
	return read()
}
