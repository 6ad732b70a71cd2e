package commandpad

import (
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// verdict is what a stretch of the log was found to be, in words.
type verdict struct {
	Good  bool
	Lines []string
}

// maxVerified bounds the stretch that one page checks.
const maxVerified = maxLooked

// verify checks the events from <= seq < before: that each is what its hash
// says and follows the one before it, and that all that is sealed is in the
// tree of the newest checkpoint, which the Kernel's audit key has signed.
func verify(r workflow.Reader, reg *keyregistry.Registry, note string, from, before int64) (*verdict, error) {
	v := &verdict{Good: true}
	checkpoint, err := auditlog.OpenCheckpoint(note, reg.KernelID(), reg.Document().Kernel.Audit)
	if err != nil {
		v.fail("The newest checkpoint is not signed by an audit key of the registry in force: " + err.Error() + ".")
		return v, nil //nolint:nilerr // it is the verdict
	}
	first := max(0, from-1) // one more, which the first of the stretch must follow
	events, err := r.Events(first, int(min(before-first, maxVerified+1)))
	if err != nil {
		return nil, err
	}
	v.chain(events, first)
	if err := v.included(r, events, checkpoint, from); err != nil {
		return nil, err
	}
	v.say(fmt.Sprintf("The checkpoint over %d events is signed by the Kernel's audit key.", checkpoint.Size))
	return v, nil
}

// chain checks hashes and their succession.
func (v *verdict) chain(events []workflow.StoredEvent, first int64) {
	for i, e := range events {
		event, env, err := auditlog.ParseLeaf(e.Leaf)
		switch {
		case err != nil:
			v.fail(fmt.Sprintf("Event %d cannot be read: %v.", e.Seq, err))
			return
		case e.Seq != first+int64(i) || event.Seq != e.Seq:
			v.fail(fmt.Sprintf("Event %d stands where event %d should.", event.Seq, first+int64(i)))
			return
		case env.PayloadDigest() != e.Hash:
			v.fail(fmt.Sprintf("Event %d is not what its hash says.", e.Seq))
			return
		case i > 0 && event.PrevHash != events[i-1].Hash:
			v.fail(fmt.Sprintf("Event %d does not follow event %d: it names another one before it.", e.Seq, e.Seq-1))
			return
		}
	}
	if n := len(events); n > 0 {
		v.say(fmt.Sprintf("Events %d to %d follow each other without a gap: each names the hash of the one before it.", events[0].Seq, events[n-1].Seq))
	}
}

// included checks that what is sealed is in the checkpoint's tree.
func (v *verdict) included(r workflow.Reader, events []workflow.StoredEvent, checkpoint auditlog.Checkpoint, from int64) error {
	sealed, open := 0, 0
	for _, e := range events {
		if e.Seq < from {
			continue
		}
		if e.Seq >= checkpoint.Size {
			open++
			continue
		}
		proof, err := r.InclusionProof(e.Seq, checkpoint.Size)
		if err != nil {
			return err
		}
		if _, _, err := (auditlog.Entry{Index: e.Seq, Leaf: e.Leaf, Proof: proof}).Verify(checkpoint); err != nil {
			v.fail(fmt.Sprintf("Event %d is not in the tree that the checkpoint signs: %v.", e.Seq, err))
			return nil
		}
		sealed++
	}
	v.say(fmt.Sprintf("%d of them are in the tree that the checkpoint signs; %d are newer than it.", sealed, open))
	return nil
}

func (v *verdict) say(line string) { v.Lines = append(v.Lines, line) }

func (v *verdict) fail(line string) {
	v.Good = false
	v.say(line)
}
