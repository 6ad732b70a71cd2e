package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/kernelgate/kernelgate/storage/artifact"
)

// defaultMaxArtifact is in bytes.
const defaultMaxArtifact = 1 << 30

// Artifacts is where artifacts are kept.
type Artifacts struct {
	URL      string `yaml:"url"`      // a directory, or file: and an absolute path
	MaxBytes int64  `yaml:"maxBytes"` // of one artifact
}

func (a *Artifacts) settle(c *Config) error {
	if a.MaxBytes <= 0 {
		return errors.New("maxBytes: set a positive number of bytes")
	}
	u, err := url.Parse(a.URL)
	if err != nil {
		return fmt.Errorf("url: %q is neither a directory nor a URL", a.URL)
	}
	switch u.Scheme {
	case "":
		a.URL = c.data(a.URL, "artifacts")
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return fmt.Errorf("url: %q: a file URL is file: and an absolute path", a.URL)
		}
		a.URL = filepath.Clean(u.Path)
	default:
		return fmt.Errorf("url: %s is not a store that this version knows; name a directory", u.Scheme)
	}
	return nil
}

func openArtifacts(c *Config) (*artifact.Dir, error) {
	return artifact.OpenDir(c.Artifacts.URL, c.Artifacts.MaxBytes)
}
