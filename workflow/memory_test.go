package workflow_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// memory is a Store in memory: one state, copied for each transaction, so that
// what failed leaves nothing behind.
type memory struct {
	mu    sync.Mutex
	state state
	now   func() envelope.Time
	id    envelope.ID
	key   signer.Signer
}

type state struct {
	m         *memory
	upgrades  map[envelope.UUID]workflow.Upgrade
	targets   map[envelope.ID]workflow.Target
	records   []workflow.Record
	registry  []keyregistry.SignedDocument
	events    []workflow.StoredEvent
	hashes    []tlog.Hash
	suspended map[envelope.Digest][]envelope.Envelope
	claims    map[envelope.UUID]claim
	spent     map[string]int64
	note      string
	sealed    int64
	cursors   map[string]int64
}

type claim struct {
	by    string
	until envelope.Time
}

func newMemory(now func() envelope.Time) *memory {
	m := &memory{now: now}
	m.state = state{m: m, upgrades: map[envelope.UUID]workflow.Upgrade{}, targets: map[envelope.ID]workflow.Target{}, cursors: map[string]int64{},
		suspended: map[envelope.Digest][]envelope.Envelope{}, claims: map[envelope.UUID]claim{}, spent: map[string]int64{}}
	return m
}

func (m *memory) setKey(id envelope.ID, s signer.Signer, _ envelope.Envelope) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id, m.key = id, s
	return nil
}

func (m *memory) View(_ context.Context, f func(workflow.Reader) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f(m.state.copy())
}

func (m *memory) Update(_ context.Context, f func(workflow.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.state.copy()
	err := f(next)
	if err == nil {
		m.state = *next
	}
	return err
}

func (s state) copy() *state {
	up, ta := s.upgrades, s.targets
	s.upgrades, s.targets = map[envelope.UUID]workflow.Upgrade{}, map[envelope.ID]workflow.Target{}
	for k, v := range up {
		s.upgrades[k] = v
	}
	for k, v := range ta {
		s.targets[k] = v
	}
	s.cursors, s.suspended, s.claims, s.spent = maps.Clone(s.cursors), maps.Clone(s.suspended), maps.Clone(s.claims), maps.Clone(s.spent)
	s.registry = slices.Clone(s.registry)
	s.records, s.events, s.hashes = slices.Clone(s.records), slices.Clone(s.events), slices.Clone(s.hashes)
	return &s
}

func (s *state) Upgrade(id envelope.UUID) (workflow.Upgrade, error) {
	u, ok := s.upgrades[id]
	if !ok {
		return u, workflow.ErrNotFound
	}
	return u, nil
}

func (s *state) Upgrades(p workflow.Page) (list []workflow.Upgrade, _ string, _ error) {
	for _, u := range s.upgrades {
		if (p.Target == "" || p.Target == u.Target) && (p.States == nil || slices.Contains(p.States, u.State)) &&
			(p.Patch == envelope.Digest{} || p.Patch == u.Patch) && strings.Contains(strings.ToLower(u.Intent), strings.ToLower(p.Search)) {
			list = append(list, u)
		}
	}
	return list, "", nil
}

func (s *state) Due(now, until envelope.Time, _ int) (list []workflow.Upgrade, _ error) {
	for _, u := range s.upgrades {
		c, claimed := s.claims[u.ID]
		if u.NextAt != nil && !u.NextAt.After(now) && (!claimed || !c.until.After(now) || c.until.After(until)) {
			list = append(list, u)
		}
	}
	return list, nil
}

func (s *state) Claim(now, until envelope.Time, instance string, limit int) ([]workflow.Upgrade, error) {
	list, err := s.Due(now, until, limit)
	for _, u := range list {
		s.claims[u.ID] = claim{instance, until}
	}
	return list, err
}

func (s *state) Renew(id envelope.UUID, instance string, until envelope.Time) error {
	if s.claims[id].by != instance {
		return workflow.ErrNotFound
	}
	s.claims[id] = claim{instance, until}
	return nil
}

func (s *state) Release(instance string) error {
	maps.DeleteFunc(s.claims, func(_ envelope.UUID, c claim) bool { return c.by == instance })
	return nil
}

func (s *state) Wake(now envelope.Time, states []workflow.State) error {
	for id, u := range s.upgrades {
		if slices.Contains(states, u.State) {
			u.NextAt = &now
			s.upgrades[id] = u
		}
	}
	return nil
}

func (s *state) Spent(target envelope.ID, month string) (list []upgrade.Cost, _ error) {
	for _, currency := range []string{"EUR", "USD"} {
		if n, ok := s.spent[string(target)+month+currency]; ok {
			list = append(list, upgrade.Cost{Currency: currency, MinorUnits: n})
		}
	}
	return list, nil
}

func (s *state) AddSpent(target envelope.ID, month string, c upgrade.Cost) error {
	s.spent[string(target)+month+c.Currency] += c.MinorUnits
	return nil
}

func (s *state) Records(id envelope.UUID) (list []workflow.Record, _ error) {
	for _, r := range s.records {
		u := s.upgrades[id]
		if r.UpgradeID == id || r.Patch != (envelope.Digest{}) && r.Patch == u.Patch {
			list = append(list, r)
		}
	}
	return list, nil
}

func (s *state) NewestRecord(id envelope.UUID) (int64, error) {
	list, err := s.Records(id)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[len(list)-1].Seq, nil
}

func (s *state) RecordsBy(person envelope.ID, limit int) (list []workflow.Record, _ error) {
	for _, r := range slices.Backward(s.records) {
		if r.Person == person && len(list) < limit {
			list = append(list, r)
		}
	}
	return list, nil
}

func (s *state) Record(d envelope.Digest) (workflow.Record, error) {
	for _, r := range s.records {
		if r.Digest == d {
			return r, nil
		}
	}
	return workflow.Record{}, workflow.ErrNotFound
}

func (s *state) Target(name envelope.ID) (workflow.Target, error) {
	t, ok := s.targets[name]
	if !ok {
		t = workflow.Target{Name: name, Live: upgrade.None}
	}
	return t, nil
}

func (s *state) Registry() ([]keyregistry.SignedDocument, error) { return s.registry, nil }
func (s *state) Suspensions(registry envelope.Digest) ([]envelope.Envelope, error) {
	return s.suspended[registry], nil
}

func (s *state) Events(from int64, limit int) ([]workflow.StoredEvent, error) {
	return s.events[from:min(len(s.events), int(from)+limit)], nil
}

func (s *state) UpgradeEvents(id envelope.UUID) (list []workflow.StoredEvent, _ error) {
	for _, e := range s.events {
		if e.Event.UpgradeID == id {
			list = append(list, e)
		}
	}
	return list, nil
}

func (s *state) NewestRegistry() (int64, []byte, error) {
	if len(s.registry) == 0 {
		return 0, nil, nil
	}
	return int64(len(s.registry)), s.registry[len(s.registry)-1].Document, nil
}

func (s *state) Checkpoint() (string, int64, error) {
	if s.note == "" {
		return "", 0, workflow.ErrNotFound
	}
	return s.note, s.sealed, nil
}

func (s *state) ReadHashes(indexes []int64) (out []tlog.Hash, _ error) {
	for _, i := range indexes {
		out = append(out, s.hashes[i])
	}
	return out, nil
}

func (s *state) LogSize() (int64, error)                { return int64(len(s.events)), nil }
func (s *state) TreeRoot(size int64) (tlog.Hash, error) { return tlog.TreeHash(size, s) }
func (s *state) InclusionProof(index, size int64) ([][]byte, error) {
	p, err := tlog.ProveRecord(size, index, s)
	return raw(p), err
}

func (s *state) ConsistencyProof(a, b int64) ([][]byte, error) {
	p, err := tlog.ProveTree(b, a, s)
	return raw(p), err
}

func raw(hashes []tlog.Hash) [][]byte {
	out := [][]byte{}
	for _, h := range hashes {
		out = append(out, slices.Clone(h[:]))
	}
	return out
}

func (s *state) PutUpgrade(u workflow.Upgrade) error {
	s.upgrades[u.ID] = u
	delete(s.claims, u.ID)
	return nil
}
func (s *state) PutTarget(t workflow.Target) error { s.targets[t.Name] = t; return nil }
func (s *state) AddRecord(r workflow.Record) (bool, error) {
	if _, err := s.Record(r.Digest); err == nil {
		return false, nil
	}
	s.records = append(s.records, r)
	return true, nil
}

func (s *state) AddRegistry(_ int64, e keyregistry.SignedDocument) error {
	s.registry = append(s.registry, e)
	return nil
}

func (s *state) AddSuspension(env envelope.Envelope, registry envelope.Digest) error {
	s.suspended[registry] = append(slices.Clone(s.suspended[registry]), env)
	return nil
}

func (s *state) PutCheckpoint(note string, size int64) error {
	s.note, s.sealed = note, size
	return nil
}

func (s *state) AppendEvent(d workflow.EventDraft) (workflow.StoredEvent, error) {
	ev := auditlog.Event{Actor: d.Actor, Data: d.Data, KernelID: s.m.id, Seq: int64(len(s.events)), Time: s.m.now(), Type: d.Type, UpgradeID: d.UpgradeID}
	if n := len(s.events); n > 0 {
		ev.PrevHash = s.events[n-1].Hash
	}
	env, err := auditlog.SealEvent(context.Background(), s.m.key, ev)
	if err != nil {
		return workflow.StoredEvent{}, err
	}
	parsed, _, err := auditlog.ParseLeaf(env.Bytes())
	if err != nil {
		return workflow.StoredEvent{}, err
	}
	hashes, err := tlog.StoredHashes(ev.Seq, env.Bytes(), s)
	s.hashes = append(s.hashes, hashes...)
	stored := workflow.StoredEvent{Seq: ev.Seq, Leaf: env.Bytes(), Event: parsed, Hash: env.PayloadDigest()}
	s.events = append(s.events, stored)
	return stored, err
}

func (s *state) Cursor(follower string) (int64, error) { return s.cursors[follower], nil }

func (s *state) PutCursor(follower string, next int64) error {
	s.cursors[follower] = next
	return nil
}
