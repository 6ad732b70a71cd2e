package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow"
)

// What the toxics below do next; they are made anew for every connection.
var (
	cutNext atomic.Value // "", "before" or "after" the server gets the next COMMIT
	cutDown atomic.Bool  // the answer to that COMMIT is dropped
)

// cutCommit ends a connection at a COMMIT, on its way up.
type cutCommit struct{}

func (*cutCommit) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			if bytes.Contains(chunk.Data, []byte("commit\x00")) {
				switch cutNext.Swap("") {
				case "before":
					stub.Close()
					return
				case "after":
					cutDown.Store(true)
				}
			}
			stub.Output <- chunk
		}
	}
}

// cutAnswer drops the answer to that COMMIT, on its way down.
type cutAnswer struct{}

func (*cutAnswer) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil || cutDown.CompareAndSwap(true, false) {
				stub.Close()
				return
			}
			stub.Output <- chunk
		}
	}
}

// through is a proxy before the server, and the URL of a database by way of it.
func through(t *testing.T, server *storagetest.Server, url string) (*toxiproxy.Proxy, string) {
	t.Helper()
	toxics.Register("cut_commit", new(cutCommit))
	toxics.Register("cut_answer", new(cutAnswer))
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard))
	p := toxiproxy.NewProxy(proxies, "postgres", "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", server.Port))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for _, toxic := range []string{`{"name":"up","type":"cut_commit","stream":"upstream"}`, `{"name":"down","type":"cut_answer","stream":"downstream"}`} {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	return p, strings.Replace(url, fmt.Sprintf("127.0.0.1:%d", server.Port), p.Listen, 1)
}

func keyed(t *testing.T, url string) *storage.Postgres {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.OpenPostgres(context.Background(), config, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return s
}

// A connection that is cut before the server gets a COMMIT, or before its
// answer arrives: what is acknowledged is written once, and the function runs
// again only where it was not written.
func TestCutAtCommit(t *testing.T) {
	server := storagetest.Shared(t)
	cutNext.Store("")
	_, url := through(t, server, server.Database(t))
	s := keyed(t, url)
	written := 0
	for round := range 5 {
		for when, want := range map[string]int{"": 1, "before": 2, "after": 1} {
			runs := 0
			cutNext.Store(when)
			err := s.Update(context.Background(), func(tx workflow.Tx) error {
				runs++
				text := fmt.Sprint(round, when)
				added, err := tx.AddRecord(workflow.Record{Digest: envelope.DigestOf([]byte(text)), UpgradeID: "u", Kind: "approval", Body: []byte(text)})
				if err == nil && !added {
					err = errors.New("it is written already")
				}
				if err != nil {
					return err
				}
				_, err = tx.AppendEvent(workflow.EventDraft{Type: auditlog.ApprovalSubmitted, Actor: "ryan"})
				return err
			})
			if err != nil || runs != want {
				t.Fatalf("cut %q: %d runs, not %d: %v", when, runs, want, err)
			}
			written++
			if err := s.View(context.Background(), func(r workflow.Reader) error {
				size, err := r.LogSize()
				records, recordsErr := r.Records("u")
				if size != int64(written) || len(records) != written {
					t.Errorf("cut %q: %d events and %d records, not %d", when, size, len(records), written)
				}
				return errors.Join(err, recordsErr)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	storagetest.CheckChain(t, s, int64(written))
}

// An error of a caller's that looks like a lost connection is his alone.
func TestCallersErrorIsNoLostConnection(t *testing.T) {
	s := keyed(t, storagetest.Shared(t).Database(t))
	runs := 0
	start := time.Now()
	err := s.Update(context.Background(), func(workflow.Tx) error { runs++; return io.ErrUnexpectedEOF })
	if !errors.Is(err, io.ErrUnexpectedEOF) || runs != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("%d runs, %v", runs, err)
	}
}

// Without its server a store says so, and works again once it is back.
func TestServerAway(t *testing.T) {
	server := storagetest.New(t)
	s := keyed(t, server.Database(t))
	look := func() error {
		return s.View(context.Background(), func(r workflow.Reader) error { _, err := r.LogSize(); return err })
	}
	if err := errors.Join(look(), server.Kill()); err != nil {
		t.Fatal(err)
	}
	if err := look(); !errors.Is(err, workflow.ErrStoreUnavailable) {
		t.Errorf("reading without a server: %v", err)
	}
	written := make(chan error, 1)
	go func() {
		written <- s.Update(context.Background(), func(tx workflow.Tx) error { return tx.PutCursor("bus", 1) })
	}()
	time.Sleep(300 * time.Millisecond)
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Errorf("what waited for the server is lost: %v", err)
	}
	if err := look(); err != nil {
		t.Errorf("reading afterwards: %v", err)
	}
}

// A server that would lose what it acknowledges is refused.
func TestUnsafeServer(t *testing.T) {
	ctx := context.Background()
	url := storagetest.Shared(t).Database(t)
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	latin := url[:strings.LastIndex(url, "/")] + "/latin?sslmode=disable"
	if _, err := postgresAt(latin)(time.Now); err == nil || !strings.Contains(err.Error(), "LATIN1") {
		t.Errorf("a database in another encoding: %v", err)
	}
	// A role's or database's own setting gives way to the session's.
	if _, err := c.Exec(ctx, "ALTER ROLE kernelgate SET synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	s, err := postgresAt(url)(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "ALTER ROLE kernelgate RESET synchronous_commit"); err != nil {
		t.Fatal(err)
	}
}

// Two gateways with one instance name are one too many.
func TestHold(t *testing.T) {
	ctx := context.Background()
	url := storagetest.Shared(t).Database(t)
	one, two := keyed(t, url), keyed(t, url)
	release, err := one.Hold(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := two.Hold(ctx, "b"); err != nil {
		t.Error(err)
	} else if err := other(); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := two.Hold(short, "a"); err == nil {
		t.Error("the name is held twice")
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Hold(ctx, "a"); err != nil {
		t.Error(err)
	}
}
