package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/cmd/kernelgate/api"
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage"
	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow"
)

// logServer is a gateway over a real database, of which only the log matters.
type logServer struct {
	store *storage.SQLite
	audit signer.Signer
	url   string
}

func startLog(t *testing.T, private bool) *logServer {
	t.Helper()
	store, err := storage.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "log.db"), time.Now)
	check(t, err)
	t.Cleanup(func() { check(t, store.Close()) })
	store.SetEventKey(registrytest.KernelID, registrytest.Key(signer.Ed25519))
	return &logServer{store, registrytest.Key(signer.Ed25519), serveLog(t, &api.Gateway{Store: store}, private)}
}

// serveLog serves a log beside an engine that is not asked.
func serveLog(t *testing.T, log api.LogReader, private bool) (url string) {
	t.Helper()
	artifacts, err := artifact.OpenDir(t.TempDir(), artifactLimit)
	check(t, err)
	t.Cleanup(func() { check(t, artifacts.Close()) })
	tokens := filepath.Join(t.TempDir(), "tokens")
	(&gateway{tokens: tokens}).token(t, "first", "auditor")
	file, err := api.OpenTokens(tokens)
	check(t, err)
	handler, err := api.New(api.Config{Engine: &engine{}, Artifacts: artifacts, Tokens: file, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Log: log, PrivateLog: private})
	check(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// grow appends events and seals all but the last few.
func (s *logServer) grow(t *testing.T, events int, unsealed int64) auditlog.Checkpoint {
	t.Helper()
	var c auditlog.Checkpoint
	check(t, s.store.Update(context.Background(), func(tx workflow.Tx) error {
		for i := range events {
			if _, err := tx.AppendEvent(workflow.EventDraft{Type: auditlog.UpgradeCreated, Actor: "ryan", Data: auditlog.Data{"n": int64(i)}}); err != nil {
				return err
			}
		}
		size, err := tx.LogSize()
		if err != nil {
			return err
		}
		c = auditlog.Checkpoint{Size: size - unsealed}
		if c.Root, err = tx.TreeRoot(c.Size); err != nil {
			return err
		}
		note, err := auditlog.SignCheckpoint(context.Background(), s.audit, registrytest.KernelID, c.Size, c.Root)
		if err != nil {
			return err
		}
		return tx.PutCheckpoint(note, c.Size)
	}))
	return c
}

func (s *logServer) get(t *testing.T, path string) (*http.Response, []byte) {
	t.Helper()
	answer, err := http.Get(s.url + path)
	check(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(t, err)
	return answer, body
}

func (s *logServer) checkpoint(t *testing.T) tlog.Tree {
	t.Helper()
	answer, body := s.get(t, "/log/checkpoint")
	key := keyregistry.NewKey(s.audit.Public(), signer.Ed25519, keyregistry.OriginFile, envelope.Time{}, envelope.Time{})
	c, err := auditlog.OpenCheckpoint(string(body), registrytest.KernelID, []keyregistry.Key{key})
	check(t, err)
	if answer.Header.Get("Cache-Control") != "no-cache" || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("the checkpoint's headers are %v", answer.Header)
	}
	return tlog.Tree{N: c.Size, Hash: c.Root}
}

// A client that knows C2SP tlog-tiles, and nothing of this project, reads and
// verifies the log.
func TestTlogClientReadsLog(t *testing.T) {
	s := startLog(t, false)
	s.grow(t, 300, 2)
	old := s.checkpoint(t)
	s.grow(t, 700, 5)
	tree := s.checkpoint(t)
	if old.N != 298 || tree.N != 995 {
		t.Fatalf("the checkpoints are of %d and %d events", old.N, tree.N)
	}
	fetcher, err := torchwood.NewTileFetcher(s.url + "/log")
	check(t, err)
	client, err := torchwood.NewClient(fetcher)
	check(t, err)
	var next int64
	for i, leaf := range client.AllEntries(t.Context(), tree, 0) {
		event, _, err := auditlog.ParseLeaf(leaf)
		if err != nil || i != next || event.Seq != i {
			t.Fatalf("entry %d is event %d: %v", i, event.Seq, err)
		}
		next++
	}
	if check(t, client.Err()); next != tree.N {
		t.Errorf("%d entries, not %d", next, tree.N)
	}
	leaf, proof, err := client.Entry(t.Context(), tree, 700)
	check(t, err)
	check(t, tlog.CheckRecord(proof, tree.N, tree.Hash, 700, tlog.RecordHash(leaf)))

	// The proofs of the Go checksum database's own reader, over the same tiles.
	hashes := tlog.TileHashReader(tree, &tileReader{s.url})
	inclusion, err := tlog.ProveRecord(tree.N, 3, hashes)
	check(t, err)
	first, _, err := client.Entry(t.Context(), tree, 3)
	check(t, err)
	check(t, tlog.CheckRecord(inclusion, tree.N, tree.Hash, 3, tlog.RecordHash(first)))
	consistency, err := tlog.ProveTree(tree.N, old.N, hashes)
	check(t, err)
	check(t, tlog.CheckTree(consistency, tree.N, tree.Hash, old.N, old.Hash))
}

// tileReader is golang.org/x/mod's tlog.TileReader over C2SP's paths.
type tileReader struct{ url string }

func (r *tileReader) Height() int                     { return 8 }
func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		answer, err := http.Get(r.url + "/log/" + torchwood.TilePath(tile))
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s, %w", tile.Path(), answer.Status, err)
		}
		all = append(all, data)
	}
	return all, nil
}

func TestLogPaths(t *testing.T) {
	s := startLog(t, false)
	if answer, _ := s.get(t, "/log/checkpoint"); answer.StatusCode != http.StatusNotFound {
		t.Errorf("before the first checkpoint: %s", answer.Status)
	}
	s.grow(t, 600, 10) // 590 are sealed: two full tiles, and 78 of the third
	for path, want := range map[string]int{
		"/log/tile/0/000": 200, "/log/tile/0/001": 200, "/log/tile/0/002.p/78": 200, "/log/tile/0/002.p/1": 200,
		"/log/tile/1/000.p/2": 200, "/log/tile/1/000.p/1": 200, "/log/tile/0/000.p/255": 200,
		"/log/tile/entries/000": 200, "/log/tile/entries/002.p/78": 200,
		"/log/tile/0/002": 404, "/log/tile/0/002.p/79": 404, "/log/tile/entries/002.p/79": 404, "/log/tile/entries/002": 404,
		"/log/tile/1/000": 404, "/log/tile/1/000.p/3": 404, "/log/tile/2/000": 404, "/log/tile/2/000.p/1": 404, "/log/tile/0/003": 404,
		"/log/tile/0/x001/000": 404, "/log/tile/63/000.p/1": 404, "/log/tile/8/000.p/1": 404,
		"/log/tile/00/000": 404, "/log/tile/0/0": 404, "/log/tile/0/000.p/256": 404, "/log/tile/0/000.p/0": 404, "/log/tile/0/000.p/01": 404,
		"/log/tile/data/000": 404, "/log/tile/8/0/000": 404, "/log/tile/-1/000": 404, "/log/tile/0": 404, "/log/tile/": 404,
		"/log/tile/0/" + strings.Repeat("x999/", 30) + "999": 404, "/log/tile/entries/" + strings.Repeat("x999/", 5) + "999": 404,
	} {
		answer, body := s.get(t, path)
		if answer.StatusCode != want {
			t.Errorf("%s: %s, not %d", path, answer.Status, want)
		}
		cached := answer.Header.Get("Cache-Control")
		if want == 200 && (!strings.Contains(cached, "immutable") || answer.Header.Get("Content-Type") != "application/octet-stream" || len(body) == 0) {
			t.Errorf("%s: headers %v, %d bytes", path, answer.Header, len(body))
		}
		if want != 200 && cached != "" {
			t.Errorf("%s: a refusal is cached: %s", path, cached)
		}
	}
}

// vastLog has every tile that it is asked for.
type vastLog struct{ api.LogReader }

func (vastLog) LogTile(_ context.Context, tile tlog.Tile) ([]byte, error) {
	return fmt.Appendf(nil, "%d %d %d", tile.L, tile.N, tile.W), nil
}

// The names of tiles of a log that no test can hold, as C2SP tlog-tiles spells them.
func TestTileNames(t *testing.T) {
	s := &logServer{url: serveLog(t, vastLog{}, false)}
	for path, want := range map[string]string{
		"tile/0/x001/067": "0 1067 256", "tile/1/x001/x234/067": "1 1234067 256", "tile/entries/x001/067.p/8": "-1 1067 8", "tile/5/x001/067.p/255": "5 1067 255",
		"tile/0/001/067": "", "tile/0/x001/x067": "", "tile/0/1067": "", "tile/0/x01/067": "", "tile/0/x000/067": "", "tile/entries/x001/067.p/256": "", "tile/0/x001/067.p": "", "tile/0/x001/067/": "",
	} {
		answer, body := s.get(t, "/log/"+path)
		if want != "" && string(body) != want || (answer.StatusCode == http.StatusOK) != (want != "") || want == "" && answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, %s; %q is wanted", path, answer.Status, body, want)
		}
	}
}

// PrivateLog closes what is open otherwise.
func TestPrivateLog(t *testing.T) {
	s := startLog(t, true)
	s.grow(t, 3, 0)
	for _, path := range []string{"/log/checkpoint", "/log/tile/entries/000.p/3"} {
		if answer, _ := s.get(t, path); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token: %s", path, answer.Status)
		}
	}
}
