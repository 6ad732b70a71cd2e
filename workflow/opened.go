package workflow

import (
	"sync"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// opened is a record of people, parsed. It never changes.
type opened struct {
	envelope envelope.Envelope
	manifest *upgrade.Manifest // of a manifest
	approval *upgrade.Approval // of an approval; nil where it is none, which counting it will say
}

func openRecord(kind string, env envelope.Envelope) (o opened, err error) {
	o.envelope = env
	switch kind {
	case KindManifest:
		o.manifest, err = upgrade.OpenManifest(env)
	case KindApproval:
		o.approval, _ = upgrade.OpenApproval(env)
	}
	return o, err
}

// rememberedBytes of bodies, at least, are not parsed again each time that their
// upgrade is looked at. The parsed records are about three times as large.
const rememberedBytes = 4 << 20

// memory is what stored bodies say. A record's digest is that of its payload;
// the key here is of all its bytes, so that nothing else is ever found for them.
// It has two generations: when the young one is full, the old one is forgotten.
type memory struct {
	mu         sync.Mutex
	size       int // of the young, in bytes of bodies
	young, old map[memoryKey]opened
}

type memoryKey struct {
	kind string
	body envelope.Digest
}

// open parses a body, or remembers it.
func (m *memory) open(kind string, body []byte) (opened, error) {
	key := memoryKey{kind, envelope.DigestOf(body)}
	m.mu.Lock()
	o, known := m.young[key]
	if !known {
		if o, known = m.old[key]; known {
			m.keep(key, o, len(body))
		}
	}
	m.mu.Unlock()
	if known {
		return o, nil
	}
	env, err := envelope.Parse(body)
	if err == nil {
		o, err = openRecord(kind, env)
	}
	if err == nil {
		m.put(kind, body, o)
	}
	return o, err
}

// put remembers what was parsed by somebody else, of whom it is known that the
// body will be stored.
func (m *memory) put(kind string, body []byte, o opened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(memoryKey{kind, envelope.DigestOf(body)}, o, len(body))
}

// keep is called with mu held.
func (m *memory) keep(key memoryKey, o opened, size int) {
	if m.young == nil || m.size+size > rememberedBytes {
		m.young, m.old, m.size = map[memoryKey]opened{}, m.young, 0
	}
	m.young[key] = o
	m.size += size
}
