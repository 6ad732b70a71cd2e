package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	maxAnswer = 16 << 10
	// attempts: a witness that knows another size tells it, once; another
	// gateway of this log may have been faster, once more.
	attempts = 3
)

// conflict is the size that a witness has seen last.
type conflict struct{ size int64 }

func (c *conflict) Error() string { return fmt.Sprintf("it has seen %d events", c.size) }

// askOne asks one witness and returns the lines of its valid cosignature.
func (w *Witnesses) askOne(ctx context.Context, one auditlog.Witness, note string, size int64) (string, error) {
	for range attempts {
		w.mu.Lock()
		old := w.known[one.Name]
		w.mu.Unlock()
		if old > size {
			return "", failure.New(failure.AuditFork, "it has seen %d events of this log, which now has %d: the log was restored from a backup, or runs twice", old, size)
		}
		line, err := w.submit(ctx, one, note, old, size)
		var behind *conflict
		known := size
		if errors.As(err, &behind) {
			known = behind.size
		} else if err != nil {
			return "", err
		}
		w.mu.Lock()
		w.known[one.Name] = known
		w.mu.Unlock()
		if err == nil {
			return line, nil
		}
	}
	return "", errors.New("the size that it has seen changes with each answer; it is asked again with the next checkpoint")
}

// submit is one add-checkpoint request.
func (w *Witnesses) submit(ctx context.Context, one auditlog.Witness, note string, old, size int64) (line string, err error) {
	body, err := w.request(ctx, note, old, size)
	if err != nil {
		return "", err
	}
	target, err := url.JoinPath(one.URL, "add-checkpoint")
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	answer, err := w.http.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil || len(text) > maxAnswer {
		return "", fmt.Errorf("its answer broke off, or has more than %d bytes: %w", maxAnswer, err)
	}
	return judge(answer, string(text), one, note)
}

// request is the consistency proof from what the witness has seen, and the note.
func (w *Witnesses) request(ctx context.Context, note string, old, size int64) ([]byte, error) {
	body := fmt.Appendf(nil, "old %d\n", old)
	err := w.store.View(ctx, func(r workflow.Reader) error {
		proof, err := r.ConsistencyProof(old, size)
		for _, hash := range proof {
			body = append(base64.StdEncoding.AppendEncode(body, hash), '\n')
		}
		return err
	})
	return append(append(body, '\n'), note...), err
}

func judge(answer *http.Response, text string, one auditlog.Witness, note string) (string, error) {
	switch answer.StatusCode {
	case http.StatusOK:
		return cosignature(text, one, note)
	case http.StatusConflict:
		media, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
		size, sizeErr := strconv.ParseInt(strings.TrimSuffix(text, "\n"), 10, 64)
		if err != nil || media != "text/x.tlog.size" || sizeErr != nil || size < 0 || size > envelope.MaxInt {
			return "", errors.New("it refuses (409) and does not say which size it has seen")
		}
		return "", &conflict{size}
	case http.StatusUnprocessableEntity:
		return "", failure.New(failure.AuditFork, "it has seen a log that this one does not continue: %.200q", text)
	case http.StatusNotFound:
		return "", fmt.Errorf("it does not know this log: ask its operator to add it (404, %.200q)", text)
	case http.StatusForbidden:
		return "", fmt.Errorf("it does not know the audit key that signed: ask its operator to add it (403, %.200q)", text)
	}
	return "", fmt.Errorf("it answered %s: %.200q", answer.Status, text)
}

// cosignature takes from an answer the one line that is the witness's, and
// verifies it: what does not verify never reaches the store.
func cosignature(text string, one auditlog.Witness, note string) (string, error) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "— "+one.Name+" ") || !strings.HasSuffix(line, "\n") {
			continue
		}
		if found, err := auditlog.Cosignatures(note+line, []auditlog.Witness{one}); err != nil {
			return "", fmt.Errorf("its cosignature does not verify: %w", plain{err})
		} else if len(found) == 1 {
			return line, nil
		}
	}
	return "", errors.New("its answer has no cosignature by the key that the policy names")
}
