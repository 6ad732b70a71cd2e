package keyregistry

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// memo remembers signatures that verified under one document, so that a record
// that is judged again and again costs one verification. Only successes are
// remembered, by all that was verified. It has two generations: when the young
// one is full, the old one is forgotten.
type memo struct {
	limit int // of a generation

	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
}

// Remembering is the same registry, which remembers the last signatures that
// verified: at least limit of them, at most twice as many. It is for those who
// judge the same records often, and is safe for concurrent use.
func (r *Registry) Remembering(limit int) *Registry {
	again := *r
	again.memo = &memo{limit: limit, young: map[[sha256.Size]byte]struct{}{}}
	return &again
}

// Verify checks env's one signature under a key of the registry, as Key.Verify.
func (r *Registry) Verify(e Entry, env envelope.Envelope) error {
	sig := env.Signatures[0]
	if r.memo == nil {
		return e.Key.Verify(env, sig)
	}
	id := verified(e.Key, env, sig)
	if r.memo.has(id) {
		return nil
	}
	err := e.Key.Verify(env, sig)
	if err == nil {
		r.memo.add(id)
	}
	return err
}

// verified is a digest of all that a verification depends on, each part with
// its length before it. What else the key's entry says is the document's.
func verified(k *Key, env envelope.Envelope, sig envelope.Signature) (id [sha256.Size]byte) {
	parts := [][]byte{[]byte(k.KeyID), []byte(sig.KeyID), env.PAE(), sig.Sig}
	if sig.WebAuthn != nil {
		parts = append(parts, sig.WebAuthn.AuthenticatorData, sig.WebAuthn.ClientDataJSON)
	}
	h := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	h.Sum(id[:0])
	return id
}

func (m *memo) has(id [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, young := m.young[id]
	_, old := m.old[id]
	return young || old
}

func (m *memo) add(id [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= m.limit {
		m.young, m.old = map[[sha256.Size]byte]struct{}{}, m.young
	}
	m.young[id] = struct{}{}
}
