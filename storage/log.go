package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// head is where the log ends: what the next event follows.
type head struct {
	size int64
	hash envelope.Digest
	time envelope.Time
}

func readHead(ctx context.Context, tx *sql.Tx) (head, error) {
	var seq int64
	var leaf []byte
	err := tx.QueryRowContext(ctx, "SELECT seq, leaf FROM events ORDER BY seq DESC LIMIT 1").Scan(&seq, &leaf)
	if errors.Is(err, sql.ErrNoRows) {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	event, env, err := auditlog.ParseLeaf(leaf)
	if err != nil {
		return head{}, fmt.Errorf("the last event of the log is damaged: %w", err)
	}
	return head{size: seq + 1, hash: env.PayloadDigest(), time: event.Time}, nil
}

func storedEvent(seq int64, leaf []byte) (workflow.StoredEvent, error) {
	event, env, err := auditlog.ParseLeaf(leaf)
	if err != nil {
		return workflow.StoredEvent{}, fmt.Errorf("event %d: %w", seq, err)
	}
	return workflow.StoredEvent{Seq: seq, Leaf: leaf, Event: event, Hash: env.PayloadDigest()}, nil
}

func (r *reader) hashes() tlog.HashReader { return r }

// ReadHashes reads stored hashes of the tree, by their tlog index: a tile's in
// one query.
func (r *reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	query, args := r.treeHashes(indexes)
	found := make(map[int64]tlog.Hash, len(indexes))
	rows, err := r.tx.QueryContext(r.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var index int64
		var raw []byte
		if err := rows.Scan(&index, &raw); err != nil {
			return nil, err
		}
		if len(raw) != tlog.HashSize {
			return nil, fmt.Errorf("hash %d of the tree has %d bytes", index, len(raw))
		}
		found[index] = tlog.Hash(raw)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := found[index]
		if !ok {
			return nil, fmt.Errorf("hash %d of the tree is missing", index)
		}
		out[i] = h
	}
	return out, nil
}

// LogSize is how many events the log has.
func (r *reader) LogSize() (int64, error) {
	var size int64
	err := r.tx.QueryRowContext(r.ctx, "SELECT COALESCE(MAX(seq) + 1, 0) FROM events").Scan(&size)
	return size, err
}

// TreeRoot is the root of the tree over the first size events.
func (r *reader) TreeRoot(size int64) (tlog.Hash, error) { return tlog.TreeHash(size, r.hashes()) }

// InclusionProof proves event index in the tree of the first size events.
func (r *reader) InclusionProof(index, size int64) ([][]byte, error) {
	proof, err := tlog.ProveRecord(size, index, r.hashes())
	return bytesOf(proof), err
}

// ConsistencyProof proves that the tree of newSize continues that of oldSize.
// It is empty for the empty tree and for the same size.
func (r *reader) ConsistencyProof(oldSize, newSize int64) ([][]byte, error) {
	if oldSize == 0 || oldSize == newSize {
		return nil, nil
	}
	proof, err := tlog.ProveTree(newSize, oldSize, r.hashes())
	return bytesOf(proof), err
}

func bytesOf(hashes []tlog.Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i, h := range hashes {
		out[i] = slices.Clone(h[:])
	}
	return out
}

// Leaves are the leaves of the events below end, as they stand in the database,
// judged by nobody: what package history verifies. Only the end of the log ever
// changes, so that pages, each of its own state, make up one.
func (s *db) Leaves(ctx context.Context, end int64) iter.Seq2[[]byte, error] {
	return paged(end, func(after int64) (page []row, err error) {
		err = s.View(ctx, func(r workflow.Reader) error {
			page, err = r.(*reader).page(after, end)
			return err
		})
		return page, err
	})
}

// LeavesOf is Leaves of the state that a reader of this package reads.
func LeavesOf(r workflow.Reader, end int64) iter.Seq2[[]byte, error] {
	return paged(end, func(after int64) ([]row, error) { return r.(*reader).page(after, end) })
}

func (r *reader) page(after, end int64) ([]row, error) {
	return collect(r, scanLeaf, "SELECT seq, leaf FROM events WHERE seq > $1 AND seq < $2 ORDER BY seq LIMIT $3", after, end, maxPage)
}

func paged(end int64, read func(after int64) ([]row, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for after := int64(math.MinInt64); after < end-1; {
			page, err := read(after)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range page {
				if !yield(row.leaf, nil) {
					return
				}
				after = row.seq
			}
			if len(page) < maxPage {
				return
			}
		}
	}
}

// row is a row of the log.
type row struct {
	seq  int64
	leaf []byte
}

func scanLeaf(rows *sql.Rows) (r row, err error) {
	err = rows.Scan(&r.seq, &r.leaf)
	return r, err
}

// Events are at most limit events from seq on.
func (r *reader) Events(from int64, limit int) ([]workflow.StoredEvent, error) {
	return r.events("SELECT seq, leaf FROM events WHERE seq >= $1 ORDER BY seq LIMIT $2", from, limit)
}

// UpgradeEvents are the events of one upgrade.
func (r *reader) UpgradeEvents(id envelope.UUID) ([]workflow.StoredEvent, error) {
	return r.events("SELECT seq, leaf FROM events WHERE upgrade_id = $1 AND upgrade_id <> '' ORDER BY seq", string(id))
}

func (r *reader) events(query string, args ...any) ([]workflow.StoredEvent, error) {
	return collect(r, func(rows *sql.Rows) (workflow.StoredEvent, error) {
		row, err := scanLeaf(rows)
		if err != nil {
			return workflow.StoredEvent{}, err
		}
		return storedEvent(row.seq, row.leaf)
	}, query, args...)
}

// Checkpoint is the last one, with its cosignatures where it has any.
func (r *reader) Checkpoint() (note string, size int64, err error) {
	return r.checkpoint("SELECT note, size FROM checkpoints ORDER BY size DESC LIMIT 1")
}

// CosignedCheckpoint is the last one that witnesses have cosigned.
func (r *reader) CosignedCheckpoint() (note string, size int64, err error) {
	return r.checkpoint("SELECT note, size FROM checkpoints WHERE size = (SELECT MAX(size) FROM cosigned)")
}

func (r *reader) checkpoint(query string) (note string, size int64, err error) {
	if err = r.tx.QueryRowContext(r.ctx, query).Scan(&note, &size); err != nil {
		return "", 0, notFound(err)
	}
	lines, err := collect(r, func(rows *sql.Rows) (line string, err error) { err = rows.Scan(&line); return line, err },
		"SELECT line FROM cosigned WHERE size = $1 ORDER BY witness", size)
	return note + strings.Join(lines, ""), size, err
}

// PutCheckpoint stores the checkpoint of a size. One that is known stays; of
// the same with signature lines after it those are added that are of a key
// that has none there yet, so that no cosignature is ever lost.
func (w *writer) PutCheckpoint(note string, size int64) error {
	var known string
	err := w.tx.QueryRowContext(w.ctx, "SELECT note FROM checkpoints WHERE size = $1", size).Scan(&known)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = w.tx.ExecContext(w.ctx, "INSERT INTO checkpoints (size, note) VALUES ($1, $2)", size, note)
		return err
	}
	lines, same := strings.CutPrefix(note, known)
	if err != nil || !same {
		return err
	}
	for line := range strings.Lines(lines) {
		witness, err := auditlog.SignerOf(line)
		if err != nil {
			return err
		}
		if _, err := w.tx.ExecContext(w.ctx, "INSERT INTO cosigned (size, witness, line) SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM cosigned WHERE size = $1 AND witness = $2)", size, witness, line); err != nil {
			return err
		}
	}
	return nil
}
