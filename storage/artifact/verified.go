package artifact

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// verified hashes an object while it is read. It checks the digest before it
// hands out the last bytes, not after: a reader that stops at the size it
// expects, and never sees the end, must not get damaged content either.
type verified struct {
	from   io.ReadCloser
	left   int64
	hash   hash.Hash
	digest envelope.Digest
	err    error // set once the end is reached
}

func newVerified(from io.ReadCloser, size int64, digest envelope.Digest) *verified {
	return &verified{from: from, left: size, hash: sha256.New(), digest: digest}
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	v.hash.Write(p[:n])
	v.left -= int64(n)
	if v.left > 0 && err == nil {
		return n, nil
	}
	if v.left != 0 || envelope.Digest(v.hash.Sum(nil)) != v.digest {
		v.err = fmt.Errorf("artifact %s: %w", v.digest, workflow.ErrArtifactCorrupt)
		return 0, v.err
	}
	v.err = io.EOF
	return n, err
}

func (v *verified) Close() error { return v.from.Close() }
