// Package history judges the whole audit log (PROTOCOL section 10) from its
// bytes: every event's form, place, time and signature, the delegation of each
// event key, and the tree under a signed checkpoint, against what a verifier
// brings along: the pinned root, checkpoints that it kept and a policy of
// witnesses. It is pure; it reads a log of any length once, on all cores, in
// bounded memory.
package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
)

// Trust is what a verifier brings along; only Root is required.
type Trust struct {
	Root envelope.Digest
	// Kept are checkpoints that were kept from earlier, or got elsewhere. The
	// log must continue each of them, or it was rewritten, cut or restored.
	Kept   []string
	Policy *auditlog.WitnessPolicy // nil: no witness is asked for
	// Since is what the newest event may not be older than: a log that is kept
	// has a heartbeat. Zero: it may be of any age.
	Since envelope.Time
	// Progress is told after each block how many events are verified; nil is allowed.
	Progress func(done, size int64)
}

// Claim is what a log says of itself.
type Claim struct {
	Registry   []keyregistry.SignedDocument // version 1 first
	Checkpoint string                       // the signed note over the leaves
}

// Verdict is what a valid log proves.
type Verdict struct {
	KernelID        envelope.ID
	Size            int64
	Root            tlog.Hash
	RegistryVersion int64
	From, To        envelope.Time // of the first and the last event
	EventKeys       int           // how many were delegated
	Kept            int           // checkpoints that the log was found to continue
	Cosignatures    []auditlog.Cosignature
	// Unknown counts the events of types that this version of the protocol
	// does not list. They are history, and prove nothing else.
	Unknown int64
}

// RowError names the first event of the log that is bad.
type RowError struct {
	Seq int64
	Err error
}

func (e *RowError) Error() string { return fmt.Sprintf("event %d: %v", e.Seq, e.Err) }
func (e *RowError) Unwrap() error { return e.Err }

// rowError gives the row's number to people too, whatever names the class.
func rowError(seq int64, err error) error {
	return &RowError{seq, failure.New(failure.ClassOf(failure.As(failure.AuditChainBroken, err)), "event %d: %s", seq, failure.DetailOf(err))}
}

// Verify judges a log. Its leaves come in order; an error that the iterator
// yields ends the verification with that error, which is then no verdict.
// Failure classes besides those of a leaf's own form: audit_chain_broken (a row
// is not what follows the one before, or is not signed as it must be),
// audit_proof_invalid (the checkpoint is not of these rows, or not signed or
// cosigned as asked), audit_fork (the log does not continue a kept checkpoint),
// time_invalid (its newest event is older than asked).
func Verify(ctx context.Context, trust Trust, claim Claim, leaves iter.Seq2[[]byte, error]) (*Verdict, error) {
	l, err := newLog(trust, claim)
	if err != nil {
		return nil, err
	}
	for block, err := range blocks(leaves, l.head.Size) {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := l.add(block); err != nil {
			return nil, err
		}
		if trust.Progress != nil {
			trust.Progress(l.tree.size, l.head.Size)
		}
	}
	return l.end()
}

// log is a log as far as it is verified.
type log struct {
	regs   keyregistry.Chain
	head   auditlog.Checkpoint
	kept   []auditlog.Checkpoint // by size
	since  envelope.Time
	passed int // how many of kept the tree has grown past
	keys   map[envelope.KeyID]auditlog.EventKey
	tree   tree
	hash   envelope.Digest // of the last event
	out    Verdict
}

func newLog(trust Trust, claim Claim) (*log, error) {
	regs, err := keyregistry.AcceptChain(trust.Root, claim.Registry)
	if err != nil {
		return nil, err
	}
	l := &log{regs: regs, since: trust.Since, keys: map[envelope.KeyID]auditlog.EventKey{}}
	last := regs.Last()
	if l.head, err = auditlog.OpenCheckpoint(claim.Checkpoint, last.KernelID(), last.Document().Kernel.Audit); err != nil {
		return nil, err
	}
	if l.kept, err = openKept(regs, trust.Kept); err != nil {
		return nil, err
	}
	if n := len(l.kept); n > 0 && l.kept[n-1].Size > l.head.Size {
		return nil, failure.New(failure.AuditFork, "the log has %d events, but the kept checkpoint has %d: it was cut, or restored from an older backup", l.head.Size, l.kept[n-1].Size)
	}
	l.out = Verdict{KernelID: last.KernelID(), RegistryVersion: last.Version(), Size: l.head.Size, Root: l.head.Root}
	if trust.Policy != nil {
		if l.out.Cosignatures, err = trust.Policy.Check(claim.Checkpoint); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// openKept opens checkpoints by the audit keys of any document of the chain:
// whoever kept one may have done so under an earlier document.
func openKept(regs keyregistry.Chain, notes []string) ([]auditlog.Checkpoint, error) {
	var keys []keyregistry.Key
	seen := map[envelope.KeyID]bool{}
	for _, reg := range regs {
		for _, key := range reg.Document().Kernel.Audit {
			if !seen[key.KeyID] {
				seen[key.KeyID] = true
				keys = append(keys, key)
			}
		}
	}
	kept := make([]auditlog.Checkpoint, len(notes))
	for i, text := range notes {
		var err error
		if kept[i], err = auditlog.OpenCheckpoint(text, regs.Last().KernelID(), keys); err != nil {
			return nil, failure.Reclass(failure.ClassOf(err), fmt.Errorf("the kept checkpoint: %s", failure.DetailOf(err)))
		}
	}
	slices.SortFunc(kept, func(a, b auditlog.Checkpoint) int { return int(a.Size - b.Size) })
	return kept, nil
}

// add verifies the next block: leaves are parsed side by side, linked one
// after the other, and their signatures verified side by side.
func (l *log) add(leaves [][]byte) error {
	first := l.tree.size
	rows := make([]row, len(leaves))
	each(len(leaves), func(i int) { rows[i].parse(leaves[i]) })
	linked, linkErr := len(rows), error(nil)
	for i := range rows {
		if linkErr = l.link(first+int64(i), &rows[i]); linkErr != nil {
			linked = i
			break
		}
	}
	each(linked, func(i int) { rows[i].verify() })
	for i := range rows[:linked] {
		if rows[i].err != nil {
			return rowError(first+int64(i), rows[i].err)
		}
		l.tree.add(rows[i].leafHash)
		if err := l.checkKept(); err != nil {
			return err
		}
	}
	if linkErr != nil {
		return rowError(first+int64(linked), linkErr)
	}
	return nil
}

// link checks what a row has to do with those before it.
func (l *log) link(seq int64, r *row) error {
	e := &r.event
	switch {
	case seq >= l.head.Size:
		return failure.New(failure.AuditProofInvalid, "it stands after the %d events that the checkpoint seals", l.head.Size)
	case r.err != nil:
		return r.err
	case e.Seq != seq:
		return broken("it says seq %d", e.Seq)
	case e.KernelID != l.out.KernelID:
		return broken("it is of the Kernel %q", e.KernelID)
	case e.PrevHash != l.hash:
		return broken("its prevHash is not the hash of the event before")
	case seq > 0 && e.Time.Before(l.out.To):
		return broken("its time %s is before %s, the time of the event before", e.Time, l.out.To)
	}
	if seq == 0 {
		l.out.From = e.Time
	}
	l.out.To, l.hash = e.Time, r.hash
	if e.Type == auditlog.KeyDelegated {
		key, err := auditlog.VerifyDelegation(l.regs, *e)
		if err != nil {
			return err
		}
		// Keys that ended sign nothing any more, since time never goes back.
		maps.DeleteFunc(l.keys, func(_ envelope.KeyID, k auditlog.EventKey) bool { return k.NotAfter.Before(e.Time) })
		l.keys[key.EventKeyID] = key
		l.out.EventKeys++
	} else if !auditlog.KnownType(e.Type) {
		l.out.Unknown++
	}
	// Only a key that was introduced by now: a later delegation does not
	// reach back.
	key, known := l.keys[e.KeyID]
	if !known {
		return broken("no event before it, nor itself, delegates its event key, or that key had ended")
	}
	r.key = key
	return nil
}

func (l *log) checkKept() error {
	for l.passed < len(l.kept) && l.kept[l.passed].Size <= l.tree.size {
		kept := l.kept[l.passed]
		if kept.Size == l.tree.size && kept.Root != l.tree.root() {
			return failure.New(failure.AuditFork, "the first %d events are not those of the kept checkpoint: one of them was rewritten", kept.Size)
		}
		l.passed++
	}
	return nil
}

func (l *log) end() (*Verdict, error) {
	switch {
	case l.tree.size < l.head.Size:
		return nil, &RowError{l.tree.size, failure.New(failure.AuditProofInvalid, "event %d: it is missing; the checkpoint seals %d events", l.tree.size, l.head.Size)}
	case l.tree.root() != l.head.Root:
		return nil, failure.New(failure.AuditProofInvalid, "the %d events are not those that the checkpoint seals: one of them was rewritten%s", l.head.Size, l.after())
	case l.out.To.Before(l.since):
		return nil, failure.New(failure.TimeInvalid, "the newest event is of %s: nothing was logged since, or it is not shown; a log that is kept has an event by %s", l.out.To, l.since)
	}
	l.out.Kept = len(l.kept)
	return &l.out, nil
}

// after narrows a rewritten row down, for people.
func (l *log) after() string {
	if l.passed == 0 {
		return ""
	}
	return fmt.Sprintf(" after event %d", l.kept[l.passed-1].Size-1)
}

func broken(format string, args ...any) error {
	return failure.New(failure.AuditChainBroken, format, args...)
}

// row is one event on its way.
type row struct {
	event    auditlog.Event
	env      envelope.Envelope
	hash     envelope.Digest
	leafHash tlog.Hash
	key      auditlog.EventKey
	err      error
}

func (r *row) parse(leaf []byte) {
	if r.event, r.env, r.err = auditlog.ParseLeaf(leaf); r.err == nil {
		r.hash, r.leafHash = r.env.PayloadDigest(), auditlog.LeafHash(leaf)
	}
}

func (r *row) verify() { r.err = auditlog.VerifyEvent(r.event, r.env, r.key) }

// BadRow is the seq of the first bad event, where err names one.
func BadRow(err error) (seq int64, ok bool) {
	var row *RowError
	if !errors.As(err, &row) {
		return 0, false
	}
	return row.Seq, true
}
