package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	// slowest is the pace, in bytes a second, below which a transfer to or from
	// the storage is given up, after a minute for its beginning.
	slowest   = 256 << 10
	beginning = time.Minute
	// partSize is of one part of an upload; uploadParts travel at once.
	partSize    = 8 << 20
	uploadParts = 3
)

// Blob is a store on object storage, one object an artifact, at the key
// objects/ab/cdef... as in a directory. What arrives is first spooled to a
// local file and hashed: the storage gets whole artifacts only, under their own
// digest, and only where it has none yet. It is safe for concurrent use, and any
// number of gateways may use one bucket.
type Blob struct {
	bucket   *blob.Bucket
	spool    string
	maxBytes int64
	stop     context.CancelFunc
	sweeps   sync.WaitGroup
}

var _ workflow.Artifacts = (*Blob)(nil)

// OpenBlob opens the store at a URL of gocloud.dev/blob whose scheme is
// registered: s3 is. The URL's path is a prefix of the keys. Credentials are
// found as other programs of that cloud find theirs. spool is a local directory
// with room for artifacts on their way, made where it is missing. The storage is
// not asked for anything yet; uploads that were broken off long ago are removed
// from it in the background.
func OpenBlob(ctx context.Context, address, spool string, maxBytes int64, logger *slog.Logger) (*Blob, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("artifact store: the URL cannot be read") // not told: it may hold a secret
	}
	if err := CheckURL(u); err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	if maxBytes <= 0 {
		return nil, fmt.Errorf("artifact store: the size limit is %d bytes; set a positive one", maxBytes)
	}
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	prefix := strings.Trim(u.Path, "/")
	u.Path = ""
	// Each read is checked by its SHA-256 here: the SDK's own checksums would
	// only tell damage in another way.
	q := u.Query()
	q.Set("response_checksum_validation", "when_required")
	u.RawQuery = q.Encode()
	bucket, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("artifact store %s://%s: %w", u.Scheme, u.Host, err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &Blob{bucket: bucket, spool: spool, maxBytes: maxBytes, stop: stop}
	if prefix != "" {
		prefix += "/"
		b.bucket = blob.PrefixedBucket(bucket, prefix)
	}
	b.sweeps.Go(func() { b.sweep(background, u.Host, prefix+objects+"/", logger) })
	return b, nil
}

// Close ends what runs in the background. Readers must be closed before.
func (b *Blob) Close() error {
	b.stop()
	b.sweeps.Wait()
	return b.bucket.Close()
}

// Put implements workflow.Artifacts. Where the storage has the object already,
// it is read and, if it is damaged, replaced.
func (b *Blob) Put(ctx context.Context, r io.Reader) (envelope.Digest, int64, error) {
	file, err := os.CreateTemp(b.spool, "incoming-")
	if err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact store: %w", err)
	}
	defer func() { _ = file.Close() }()
	// Without its name already now, so that a crash leaves nothing behind.
	if err := os.Remove(file.Name()); err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact store: %w", err)
	}
	digest, size, err := copyHashed(ctx, file, r, b.maxBytes)
	if err != nil {
		return envelope.Digest{}, 0, err
	}
	if err := b.store(ctx, file, digest, size); err != nil {
		return envelope.Digest{}, 0, fmt.Errorf("artifact %s: %w", digest, err)
	}
	return digest, size, nil
}

func (b *Blob) store(ctx context.Context, file io.ReadSeeker, digest envelope.Digest, size int64) error {
	known, err := b.bucket.Exists(ctx, objectName(digest))
	if err != nil {
		return err
	}
	if !known {
		err = b.upload(ctx, file, digest, size, true)
	}
	if !known && gcerrors.Code(err) != gcerrors.FailedPrecondition {
		return err // nil, or not for somebody who was faster
	}
	switch err := b.check(ctx, digest, size); {
	case err == nil:
		return nil
	case !errors.Is(err, workflow.ErrArtifactCorrupt):
		return err
	}
	return b.upload(ctx, file, digest, size, false)
}

// upload writes the object. It comes into being with its last part, or not at all.
func (b *Blob) upload(ctx context.Context, file io.ReadSeeker, digest envelope.Digest, size int64, fresh bool) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience(size))
	defer cancel()
	w, err := b.bucket.NewWriter(ctx, objectName(digest), &blob.WriterOptions{
		IfNotExist: fresh, ContentType: "application/octet-stream", BufferSize: partSize, MaxConcurrency: uploadParts,
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, file); err != nil {
		cancel() // so that Close does not complete the half of it
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// check reads an object to its end.
func (b *Blob) check(ctx context.Context, digest envelope.Digest, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience(size))
	defer cancel()
	r, _, err := b.Open(ctx, digest)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

func patience(size int64) time.Duration {
	return beginning + time.Duration(size/slowest)*time.Second
}

// Open implements workflow.Artifacts. As with Dir, the last bytes are handed
// out only if all of them are the digest's. ctx holds until the reader is closed.
func (b *Blob) Open(ctx context.Context, digest envelope.Digest) (io.ReadCloser, int64, error) {
	r, err := b.bucket.NewReader(ctx, objectName(digest), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, 0, fmt.Errorf("artifact %s: %w", digest, workflow.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("artifact %s: %w", digest, err)
	}
	return newVerified(r, r.Size(), digest), r.Size(), nil
}
