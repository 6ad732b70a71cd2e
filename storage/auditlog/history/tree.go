package history

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// tree grows by leaf hashes and keeps only the roots of its full subtrees, the
// largest first: at most 53 hashes for any log.
type tree struct {
	size  int64
	peaks []tlog.Hash
}

func (t *tree) add(h tlog.Hash) {
	for size := t.size; size&1 == 1; size >>= 1 {
		last := len(t.peaks) - 1
		h = tlog.NodeHash(t.peaks[last], h)
		t.peaks = t.peaks[:last]
	}
	t.peaks = append(t.peaks, h)
	t.size++
}

// root is the RFC 6962 root of what was added so far.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(t.peaks) - 1
	root := t.peaks[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(t.peaks[i], root)
	}
	return root
}
