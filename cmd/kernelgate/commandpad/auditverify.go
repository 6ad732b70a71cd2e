package commandpad

import (
	"fmt"
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// verdict is what a stretch of the log was found to be, in words.
type verdict struct {
	Good  bool
	Lines []string

	regs   keyregistry.Chain
	keys   map[envelope.KeyID]*auditlog.EventKey // nil: its introduction is too far back
	events []stretched
}

// stretched is an event that was parsed from its leaf.
type stretched struct {
	workflow.StoredEvent
	event auditlog.Event
	env   envelope.Envelope
}

// verify checks the events from <= seq < before: that each is what its hash
// says and follows the one before it; that each is signed by an event key that
// an audit key of the Kernel has delegated; and that all that is sealed is in
// the tree of the newest checkpoint, which an audit key has signed.
func verify(r workflow.Reader, regs keyregistry.Chain, note string, from, before int64) (*verdict, error) {
	v := &verdict{Good: true, regs: regs, keys: map[envelope.KeyID]*auditlog.EventKey{}}
	last := regs.Last()
	checkpoint, err := auditlog.OpenCheckpoint(note, last.KernelID(), last.Document().Kernel.Audit)
	if err != nil {
		v.fail("The newest checkpoint is not signed by an audit key of the registry in force: " + err.Error() + ".")
		return v, nil //nolint:nilerr // it is the verdict
	}
	first := max(0, from-1) // one more, which the first of the stretch must follow
	events, err := r.Events(first, int(min(before-first, maxLooked+1)))
	if err != nil {
		return nil, err
	}
	v.chain(events, first)
	v.events = slices.DeleteFunc(v.events, func(e stretched) bool { return e.Seq < from })
	for _, step := range []func() error{func() error { return v.signed(r) }, func() error { return v.included(r, checkpoint) }} {
		if err := step(); err != nil {
			return nil, err
		}
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
		case i > 0 && event.Time.Before(v.events[i-1].event.Time):
			v.fail(fmt.Sprintf("Event %d is of a time before that of event %d.", e.Seq, e.Seq-1))
			return
		}
		v.events = append(v.events, stretched{e, event, env})
	}
	if n := len(events); n > 0 {
		v.say(fmt.Sprintf("Events %d to %d follow each other without a gap: each names the hash of the one before it.", events[0].Seq, events[n-1].Seq))
	}
}

// signed checks each event's signature, and the delegation of its key.
func (v *verdict) signed(r workflow.Reader) error {
	checked := 0
	for _, e := range v.events {
		key, err := v.key(r, e.event)
		if err != nil {
			return err
		}
		if key == nil {
			continue
		}
		if err := auditlog.VerifyEvent(e.event, e.env, *key); err != nil {
			v.fail(fmt.Sprintf("Event %d: %v.", e.Seq, err))
			return nil
		}
		checked++
	}
	v.say(fmt.Sprintf("%d are signed by event keys that the Kernel's audit key has delegated, each inside its validity.", checked))
	if rest := len(v.events) - checked; rest > 0 && v.Good {
		v.say(fmt.Sprintf("The signatures of %d were not checked: the event that introduces their key is more than %d events back. Your own machine checks those too.", rest, maxLooked))
	}
	return nil
}

// key is the key of an event; nil where its introduction was not found, or
// does not verify, which is the verdict then.
func (v *verdict) key(r workflow.Reader, e auditlog.Event) (*auditlog.EventKey, error) {
	if key, known := v.keys[e.KeyID]; known {
		return key, nil
	}
	introduction, err := introduced(r, e)
	if err != nil || introduction == nil {
		if err == nil && e.Seq < maxLooked { // all before it was looked at
			v.fail(fmt.Sprintf("Event %d is signed by a key that no event before it introduces.", e.Seq))
		}
		v.keys[e.KeyID] = nil
		return nil, err
	}
	key, err := auditlog.VerifyDelegation(v.regs, *introduction)
	if err != nil {
		v.fail(fmt.Sprintf("Event %d introduces a key that the Kernel did not delegate: %v.", introduction.Seq, err))
		v.keys[e.KeyID] = nil
		return nil, nil
	}
	v.keys[e.KeyID] = &key
	return &key, nil
}

// introduced looks back for the event that introduces an event's key, which may
// be that event itself.
func introduced(r workflow.Reader, e auditlog.Event) (*auditlog.Event, error) {
	const batch = 500
	for end := e.Seq + 1; end > max(0, e.Seq-maxLooked); {
		from := max(0, end-batch)
		events, err := r.Events(from, int(end-from))
		if err != nil {
			return nil, err
		}
		for _, found := range slices.Backward(events) {
			if found.Event.Type == auditlog.KeyDelegated && found.Event.KeyID == e.KeyID {
				return &found.Event, nil
			}
		}
		end = from
	}
	return nil, nil //nolint:nilnil // not within the bound
}

// included checks that what is sealed is in the checkpoint's tree.
func (v *verdict) included(r workflow.Reader, checkpoint auditlog.Checkpoint) error {
	sealed := 0
	for _, e := range v.events {
		if e.Seq >= checkpoint.Size {
			break
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
	v.say(fmt.Sprintf("%d are in the tree that the checkpoint signs; %d are newer than it.", sealed, len(v.events)-sealed))
	return nil
}

func (v *verdict) say(line string) { v.Lines = append(v.Lines, line) }

func (v *verdict) fail(line string) {
	v.Good = false
	v.say(line)
}
