package deploy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
)

// spool copies the change's artifact into file and compares its digest with
// the patch, so that no byte is looked at before all of them are known to be
// those that were approved. It returns the size.
func spool(ctx context.Context, change workflow.Change, file *os.File, limit int64) (size int64, err error) {
	r, err := change.Artifact(ctx)
	if err != nil {
		return 0, fmt.Errorf("artifact %s: %w", change.Patch, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	hash := sha256.New()
	what := fmt.Sprintf("it has more than %d bytes", limit)
	size, err = io.Copy(io.MultiWriter(file, hash), &contextReader{ctx, &bounded{r, limit, what}})
	if err != nil {
		return 0, fmt.Errorf("artifact %s: %w", change.Patch, err)
	}
	if envelope.Digest(hash.Sum(nil)) != change.Patch {
		return 0, fmt.Errorf("artifact %s: %w", change.Patch, workflow.ErrArtifactCorrupt)
	}
	return size, nil
}
