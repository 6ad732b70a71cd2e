package commandpad

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// log is a log of a few events, as a store would show it.
type log struct {
	workflow.Reader
	t       *testing.T
	fixture *registrytest.Fixture
	key     signer.Signer // of events
	by      signer.Signer // delegates it
	until   envelope.Time // of the delegation
	events  []workflow.StoredEvent
	hashes  []tlog.Hash
	note    string
}

func newLog(t *testing.T, edit func(*log)) *log {
	now := mustParse(t, "2026-01-02T03:04:05Z")
	l := &log{t: t, fixture: registrytest.New(now), key: registrytest.Key(signer.Ed25519), until: now.Add(3600)}
	l.by = l.fixture.Signers[registrytest.KernelAudit]
	if edit != nil {
		edit(l)
	}
	delegation, err := auditlog.SealDelegation(t.Context(), l.by, auditlog.Delegation{EventKeyID: envelope.KeyID(l.key.Public().KeyID()), Instance: "a",
		KernelID: l.fixture.Registry.KernelID(), NotBefore: now, NotAfter: l.until, PublicKey: l.key.Public().DER()})
	must(t, err)
	l.add(auditlog.KeyDelegated, now, auditlog.Data{auditlog.DataDelegation: base64.StdEncoding.EncodeToString(delegation.Bytes())})
	for i := range int64(4) {
		l.add(auditlog.UpgradeCreated, now.Add(i), auditlog.Data{})
	}
	l.seal()
	return l
}

func mustParse(t *testing.T, text string) envelope.Time {
	at, err := envelope.ParseTime(text)
	must(t, err)
	return at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l *log) add(kind string, at envelope.Time, data auditlog.Data) {
	e := auditlog.Event{KernelID: l.fixture.Registry.KernelID(), Seq: int64(len(l.events)), Time: at, Type: kind, Actor: "kernel", Data: data}
	if n := len(l.events); n > 0 {
		e.PrevHash = l.events[n-1].Hash
	}
	env, err := auditlog.SealEvent(l.t.Context(), l.key, e)
	must(l.t, err)
	e.KeyID = env.Signatures[0].KeyID
	l.events = append(l.events, workflow.StoredEvent{Seq: e.Seq, Leaf: auditlog.Leaf(env), Event: e, Hash: env.PayloadDigest()})
}

// seal makes the tree and its checkpoint anew.
func (l *log) seal() {
	l.hashes = nil
	for i, e := range l.events {
		more, err := tlog.StoredHashes(int64(i), e.Leaf, tlog.HashReaderFunc(l.read))
		must(l.t, err)
		l.hashes = append(l.hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(l.events)), tlog.HashReaderFunc(l.read))
	must(l.t, err)
	l.note, err = auditlog.SignCheckpoint(context.Background(), l.fixture.Signers[registrytest.KernelAudit], l.fixture.Registry.KernelID(), int64(len(l.events)), root)
	must(l.t, err)
}

func (l *log) read(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *log) Events(from int64, limit int) ([]workflow.StoredEvent, error) {
	return slices.Clone(l.events[from:min(len(l.events), int(from)+limit)]), nil
}

func (l *log) InclusionProof(index, size int64) (out [][]byte, err error) {
	proof, err := tlog.ProveRecord(size, index, tlog.HashReaderFunc(l.read))
	for _, h := range proof {
		out = append(out, h[:])
	}
	return out, err
}

func (l *log) verdict() *verdict {
	l.t.Helper()
	v, err := verify(l, keyregistry.Chain{l.fixture.Registry}, l.note, 0, int64(len(l.events)))
	must(l.t, err)
	return v
}

func TestVerifyAStretch(t *testing.T) {
	v := newLog(t, nil).verdict()
	if text := strings.Join(v.Lines, " "); !v.Good || !strings.Contains(text, "5 are signed by event keys") || !strings.Contains(text, "5 are in the tree") {
		t.Fatalf("an honest log: %+v", v)
	}
	stranger := registrytest.Key(signer.Ed25519)
	for name, c := range map[string]struct {
		make  func(*log)
		spoil func(*log)
		want  string
	}{
		"another key signs, and all is sealed anew": {nil, func(l *log) {
			l.events, l.key = l.events[:4], stranger
			l.add(auditlog.UpgradeCreated, l.events[3].Event.Time, auditlog.Data{})
			l.seal()
		}, "that no event before it introduces"},
		"a key that the Kernel did not delegate": {func(l *log) { l.by = stranger }, nil, "did not delegate"},
		"events past their key's end":            {func(l *log) { l.until = l.until.Add(-3599) }, nil, "outside the validity"},
		"an event that is left out":              {nil, func(l *log) { l.events = slices.Delete(l.events, 2, 3) }, "stands where event 2 should"},
		"an event that was replaced":             {nil, func(l *log) { l.events[2].Hash = l.events[1].Hash }, "is not what its hash says"},
		"a checkpoint over another tree": {nil, func(l *log) {
			note := l.note
			l.events = l.events[:4]
			l.add(auditlog.UpgradeApplied, l.events[3].Event.Time, auditlog.Data{})
			l.seal()
			l.note = note
		}, "is not in the tree"},
		"a checkpoint by another key": {nil, func(l *log) { l.note = strings.Replace(l.note, "\n5\n", "\n4\n", 1) }, "not signed by an audit key"},
		"a signature that is changed": {nil, func(l *log) {
			_, env, err := auditlog.ParseLeaf(l.events[4].Leaf)
			must(l.t, err)
			env.Signatures[0].Sig[3] ^= 1
			l.events[4].Leaf = auditlog.Leaf(env)
			l.seal()
		}, "Event 4: "},
	} {
		l := newLog(t, c.make)
		if c.spoil != nil {
			c.spoil(l)
		}
		v := l.verdict()
		if text := strings.Join(v.Lines, " "); v.Good || !strings.Contains(text, c.want) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
