package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// cosigner is a witness that signs whatever it is shown, or answers with a
// status instead. What real ones check is the business of storage/witness.
type cosigner struct {
	auditlog.Witness
	key    ed25519.PrivateKey
	status atomic.Int64
}

func newCosigner(t *testing.T) *cosigner {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	c := &cosigner{Witness: auditlog.Witness{Name: "north.example/w1", Key: public}, key: private}
	server := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func (c *cosigner) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_, note, found := strings.Cut(string(body), "\n\n")
	if status := int(c.status.Load()); status != 0 || err != nil || !found {
		w.WriteHeader(status)
		return
	}
	text, _, _ := strings.Cut(note, "\n\n")
	now := time.Now().Unix()
	line := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, c.KeyHash()), uint64(now))
	line = append(line, ed25519.Sign(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", now, text))...)
	_, _ = fmt.Fprintf(w, "— %s %s\n", c.Name, base64.StdEncoding.EncodeToString(line))
}

// policy is the line of a policy file.
func (c *cosigner) policy() string {
	key := base64.StdEncoding.EncodeToString(append([]byte{4}, c.Key...))
	return fmt.Sprintf("witness north %s+%08x+%s %s\nquorum north\n", c.Name, c.KeyHash(), key, c.URL)
}

// An upgrade waits for witnesses; one that saw another log stops the gateway.
func TestWitnesses(t *testing.T) {
	north := newCosigner(t)
	north.status.Store(http.StatusServiceUnavailable)
	w := newWorld(t, "witnesses: {policy: witnesses.txt}\n")
	must(t, os.WriteFile(filepath.Join(w.dir, "witnesses.txt"), []byte(north.policy()), 0o600))
	w.mustInit(t)
	p, c := w.serve(t, w.token(t, "tech-lead", "operator"))
	eventually(t, "ready", isReady(p.url(t)))
	first := w.propose(t, c, "one", upgrade.None)
	eventually(t, "the engine waits for the witness", func() bool {
		return strings.Contains(fmt.Sprint(p.entries("an upgrade could not go on; it is taken up again")), north.Name)
	})
	w.waitState(t, c, first.UpgradeID, "applying")
	north.status.Store(0)
	w.waitState(t, c, first.UpgradeID, "completed")
	eventually(t, "the log's checkpoint is cosigned", func() bool {
		_, note := get(p.url(t) + "/log/checkpoint")
		return strings.Contains(note, "— "+north.Name+" ")
	})
	north.status.Store(http.StatusUnprocessableEntity)
	_, env := w.manifest(t, first.PatchHash)
	_, _ = c.Submit(t.Context(), env) // refused for its base, or taken: the log grows by what the next start says
	p.signal(15)
	p.wait(t)
	p, _ = w.serve(t, "")
	eventually(t, "the gateway stops work", func() bool {
		return len(p.entries("the gateway stops work: its log is not the one that was sealed; reading goes on")) == 1
	})
	eventually(t, "not ready", func() bool { status, _ := ready(p.url(t)); return status == http.StatusServiceUnavailable })
}
