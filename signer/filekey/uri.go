package filekey

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/kernelgate/kernelgate/signer"
)

// Scheme begins every URI of this package.
const Scheme = "file:"

// URI names a key file: file:/path?algorithm=rsa-pkcs1-sha256. The algorithm
// may be left out for the key's default.
type URI struct {
	Path      string // absolute
	Algorithm signer.Algorithm
}

// ParseURI parses a file: URI; it refuses relative paths, hosts and unknown
// query members.
func ParseURI(text string) (URI, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != strings.TrimSuffix(Scheme, ":") {
		return URI{}, errors.New("a key file's URI is file:/absolute/path, with ?algorithm= where wanted")
	}
	if u.Host != "" || u.User != nil || u.Fragment != "" || u.Opaque != "" || !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return URI{}, errors.New("a key file's URI is file: and an absolute path, without host or fragment")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return URI{}, errors.New("file URI: the query is malformed")
	}
	for name, values := range query {
		if name != "algorithm" || len(values) != 1 {
			return URI{}, errors.New("file URI: the only query member is algorithm, once")
		}
	}
	result := URI{Path: u.Path, Algorithm: signer.Algorithm(query.Get("algorithm"))}
	switch result.Algorithm {
	case "", signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return result, nil
	}
	return URI{}, fmt.Errorf("file URI: unknown algorithm %q", result.Algorithm)
}

// String is the URI; ParseURI of it gives u.
func (u URI) String() string {
	out := url.URL{Scheme: "file", Path: u.Path, OmitHost: true}
	if u.Algorithm != "" {
		out.RawQuery = "algorithm=" + url.QueryEscape(string(u.Algorithm))
	}
	return out.String()
}
