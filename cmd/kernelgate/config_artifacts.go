package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"

	"github.com/kernelgate/kernelgate/storage/artifact"
	"github.com/kernelgate/kernelgate/workflow"
)

// defaultMaxArtifact is in bytes.
const defaultMaxArtifact = 1 << 30

// Artifacts is where artifacts are kept.
type Artifacts struct {
	URL      string `yaml:"url"`      // a directory, file: and an absolute path, or s3://BUCKET
	Spool    string `yaml:"spool"`    // a directory for artifacts on their way to a bucket
	MaxBytes int64  `yaml:"maxBytes"` // of one artifact
}

func (a *Artifacts) settle(c *Config) error {
	if a.MaxBytes <= 0 {
		return errors.New("maxBytes: set a positive number of bytes")
	}
	a.Spool = c.data(a.Spool, "spool")
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
		if err := artifact.CheckURL(u); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	return nil
}

type artifacts interface {
	workflow.Artifacts
	Close() error
}

func openArtifacts(ctx context.Context, c *Config, log *slog.Logger) (artifacts, error) {
	a := &c.Artifacts
	if filepath.IsAbs(a.URL) {
		return artifact.OpenDir(a.URL, a.MaxBytes)
	}
	return artifact.OpenBlob(ctx, a.URL, a.Spool, a.MaxBytes, log)
}
