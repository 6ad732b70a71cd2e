package storage

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
)

// once is what every caller of a batch asks for. It is read once in a
// transaction, beside which nobody writes, until the transaction changes it.
type once struct {
	known       bool // version and document
	version     int64
	document    []byte
	suspensions map[envelope.Digest][]envelope.Envelope // by the registry document's digest
}

// NewestRegistry implements workflow.Reader.
func (w *writer) NewestRegistry() (version int64, document []byte, err error) {
	if !w.once.known {
		if w.once.version, w.once.document, err = w.reader.NewestRegistry(); err != nil {
			return 0, nil, err
		}
		w.once.known = true
	}
	return w.once.version, w.once.document, nil
}

// Suspensions implements workflow.Reader.
func (w *writer) Suspensions(registryDigest envelope.Digest) ([]envelope.Envelope, error) {
	if list, known := w.once.suspensions[registryDigest]; known {
		return list, nil
	}
	list, err := w.reader.Suspensions(registryDigest)
	if err == nil {
		w.once.suspensions = map[envelope.Digest][]envelope.Envelope{registryDigest: list}
	}
	return list, err
}

// AddRegistry stores the entry of a version.
func (w *writer) AddRegistry(version int64, e keyregistry.SignedDocument) error {
	w.once = once{}
	return w.addRegistry(version, e)
}

// AddSuspension stores a suspension.
func (w *writer) AddSuspension(env envelope.Envelope, registryDigest envelope.Digest) error {
	w.once = once{}
	return w.addSuspension(env, registryDigest)
}
