package api

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/workflow"
)

// LogReader reads the audit log as C2SP tlog-tiles shows it.
type LogReader interface {
	// Checkpoint is the newest signed note, cosignatures included.
	Checkpoint(ctx context.Context) (string, error)
	// LogTile is a tile of height 8 of the tree under the newest checkpoint;
	// level -1 is an entry bundle. workflow.ErrNotFound where the checkpoint
	// does not cover it.
	LogTile(ctx context.Context, tile tlog.Tile) ([]byte, error)
}

const (
	logPath    = "/log/" // its routes are read without a token, unless Config.PrivateLog
	tileHeight = 8
	tileType   = "application/octet-stream"
	// A tile's bytes follow from its name for ever, a partial one's too.
	tileCaching = "public, max-age=31536000, immutable"
)

// registerLog serves the log where tlog clients look for it: at the prefix
// /log, by C2SP tlog-tiles.
func (s *server) registerLog(e *echo.Echo) {
	if s.Log == nil {
		return
	}
	e.GET(logPath+"checkpoint", s.getLogCheckpoint)
	e.GET(logPath+"tile/*", s.getLogTile)
}

// openLog reports whether a route is of the log and needs no token. Who had to
// ask for leave to look could not hold the Kernel to its log.
func (s *server) openLog(route string) bool {
	return !s.PrivateLog && strings.HasPrefix(route, logPath)
}

func (s *server) getLogCheckpoint(c echo.Context) error {
	note, err := s.Log.Checkpoint(c.Request().Context())
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-cache")
	return c.Blob(http.StatusOK, echo.MIMETextPlainCharsetUTF8, []byte(note))
}

func (s *server) getLogTile(c echo.Context) error {
	tile, err := parseTile(c.Param("*"))
	if err != nil {
		return err
	}
	data, err := s.Log.LogTile(c.Request().Context(), tile)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, tileCaching)
	return c.Blob(http.StatusOK, tileType, data)
}

// parseTile parses LEVEL/N[.p/W] or entries/N[.p/W]. The Go checksum database's
// paths are the same, but for a height and the name of the entries.
func parseTile(path string) (tlog.Tile, error) {
	name := path
	if rest, ok := strings.CutPrefix(path, "entries/"); ok {
		name = "data/" + rest
	} else if strings.HasPrefix(path, "data/") {
		name = "" // not a name of C2SP tlog-tiles
	}
	tile, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, name))
	if err != nil {
		return tile, refuse(http.StatusNotFound, CodeNotFound, "there is no tile of that name")
	}
	return tile, nil
}

// LogTile implements LogReader.
func (g *Gateway) LogTile(ctx context.Context, tile tlog.Tile) (data []byte, err error) {
	err = g.Store.View(ctx, func(r workflow.Reader) error {
		_, size, err := r.Checkpoint()
		if err != nil {
			return err
		}
		// What is committed but not sealed proves nothing, and is not shown here.
		if !covers(size, tile) {
			return workflow.ErrNotFound
		}
		if tile.L == -1 {
			data, err = entryBundle(r, tile)
			return err
		}
		hashes, ok := r.(tlog.HashReader)
		if !ok {
			return errors.New("this store does not show the hashes of its tree")
		}
		data, err = tlog.ReadTileData(tile, hashes)
		return err
	})
	return data, err
}

// covers reports whether a tree of this size has every hash of the tile.
func covers(size int64, tile tlog.Tile) bool {
	shift := tileHeight * max(tile.L, 0)
	return shift < 63 && tile.N < math.MaxInt64>>tileHeight && tile.N<<tileHeight+int64(tile.W) <= size>>shift
}

// entryBundle is leaves, each after its length in two bytes, big-endian.
func entryBundle(r workflow.Reader, tile tlog.Tile) ([]byte, error) {
	events, err := r.Events(tile.N<<tileHeight, tile.W)
	if err != nil {
		return nil, err
	}
	var data []byte
	for i, e := range events {
		if e.Seq != tile.N<<tileHeight+int64(i) || len(e.Leaf) > math.MaxUint16 {
			return nil, fmt.Errorf("the log's rows are damaged at event %d", e.Seq)
		}
		data = binary.BigEndian.AppendUint16(data, uint16(len(e.Leaf)))
		data = append(data, e.Leaf...)
	}
	if len(events) != tile.W {
		return nil, fmt.Errorf("the log has %d of %d events from %d on", len(events), tile.W, tile.N<<tileHeight)
	}
	return data, nil
}
