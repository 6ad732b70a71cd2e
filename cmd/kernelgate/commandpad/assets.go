package commandpad

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/tyler-smith/go-bip39/wordlists"
)

// assets are the embedded files, each named by its content, so that browsers
// may keep them for ever.
type assets struct {
	named map[string]string // from app.js to app.0123456789ab.js
	data  map[string][]byte // by the second
}

func loadAssets() (assets, error) {
	a := assets{map[string]string{}, map[string][]byte{}}
	dir := subFiles("assets")
	entries, err := fs.ReadDir(dir, ".")
	for _, entry := range entries {
		data, readErr := fs.ReadFile(dir, entry.Name())
		if readErr != nil {
			return a, readErr
		}
		a.add(entry.Name(), data)
	}
	a.add(wordList, []byte(strings.Join(wordlists.English, "\n")))
	return a, err
}

// wordList is the BIP-39 list by which fingerprints are spelt.
const wordList = "words.txt"

func (a assets) add(name string, data []byte) {
	sum := sha256.Sum256(data)
	ext := path.Ext(name)
	unique := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
	a.named[name], a.data[unique] = unique, data
}

// url is an asset's address.
func (a assets) url(name string) string { return "/assets/" + a.named[name] }

// ServeHTTP serves one asset; its type follows from its name.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, ok := a.data[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}
