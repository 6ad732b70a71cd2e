package main

import (
	"context"
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// What was answered is there after a kill -9, whenever it comes.
func TestAnsweredIsKept(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "requestor")
	answered := map[envelope.UUID]string{}
	for range 5 {
		p, c := w.serve(t, token)
		w.postUntilKilled(t, p, c, answered)
	}
	if len(answered) < 5 {
		t.Fatalf("only %d posts were answered", len(answered))
	}
	p, c := w.serve(t, token)
	eventually(t, "ready", isReady(p.url(t)))
	for id, digest := range answered {
		detail, err := c.Upgrade(t.Context(), id)
		if err != nil {
			t.Errorf("%s was answered and is lost: %v", id, err)
			continue
		}
		if len(detail.Records) == 0 || detail.Records[0].Digest != digest {
			t.Errorf("%s: its record is not the answered one", id)
		}
	}
	eventually(t, "the log is sealed", func() bool { return w.verifyLog(t, c) >= int64(len(answered)) })
	t.Logf("%d answered posts, %d events", len(answered), w.verifyLog(t, c))
}

// postUntilKilled posts manifests from four clients until a kill -9 at a random
// moment, and notes what was answered.
func (w *world) postUntilKilled(t *testing.T, p *process, c *client.Client, answered map[envelope.UUID]string) {
	t.Helper()
	eventually(t, "ready", isReady(p.url(t)))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				m, env := w.manifest(t, envelope.DigestOf([]byte(crand.Text())))
				receipt, err := c.Submit(ctx, env)
				if err != nil {
					return // killed
				}
				mu.Lock()
				answered[m.UpgradeID] = receipt.RecordDigest
				mu.Unlock()
			}
		})
	}
	time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond)
	p.kill()
	stop()
	clients.Wait()
}
