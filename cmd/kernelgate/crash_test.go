package main

import (
	"bytes"
	"context"
	"iter"
	"syscall"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// verifyLog takes the whole log over the API and judges it from the root. It
// returns how many events the checkpoint covers.
func (w *world) verifyLog(t *testing.T, c *client.Client) int64 {
	t.Helper()
	note, err := c.Checkpoint(t.Context())
	must(t, err)
	chain, err := c.RegistryChain(t.Context())
	must(t, err)
	header, err := history.NewHeader("kernel-test", chain.Entries, note)
	must(t, err)
	var file bytes.Buffer
	must(t, history.Write(&file, header, leaves(t.Context(), c, header.Size)))
	verdict, err := history.VerifyFile(t.Context(), history.Trust{Root: w.root}, &file)
	must(t, err)
	return verdict.Size
}

func leaves(ctx context.Context, c *client.Client, size int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for seq := int64(0); seq < size; {
			page, err := c.Events(ctx, seq, 200)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, event := range page.Events {
				if seq < size && !yield(event.Leaf, nil) {
					return
				}
				seq++
			}
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// However serve ends, its guard ends too, and the next serve goes on at once.
func TestServeKilled(t *testing.T) {
	w := newWorld(t, "")
	w.mustInit(t)
	token := w.token(t, "tech-lead", "requestor")
	for round := range 3 {
		p, _ := w.serve(t, token)
		eventually(t, "ready", isReady(p.url(t)))
		guard := guardPID(t, p)
		p.kill()
		eventually(t, "the guard ends with serve", func() bool { return !alive(guard) })
		_, env := w.manifest(t, w.root)
		began := time.Now()
		p, c := w.serve(t, token)
		eventually(t, "a post is accepted", func() bool {
			_, err := c.Submit(t.Context(), env)
			return err == nil
		})
		took := time.Since(began)
		t.Logf("round %d: works %v after the start", round, took)
		if took > 5*time.Second { // within a second on a machine at rest; this one may be busy
			t.Errorf("it works only after %v", took)
		}
		eventually(t, "ready", isReady(p.url(t)))
		w.verifyLog(t, c)
		p.signal(syscall.SIGTERM)
		if code := p.wait(t); code != 0 {
			t.Fatalf("SIGTERM: exit code %d", code)
		}
	}
}
