package main

import (
	"fmt"
	"io"
	"os"

	"crypto/sha256"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// hashFile is the digest of a file of any size.
func hashFile(path string) (envelope.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return envelope.Digest{}, err
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return envelope.Digest{}, err
	}
	return envelope.Digest(h.Sum(nil)), nil
}

// change is a manifest with its artifact, every digest computed from bytes.
type change struct {
	envelope envelope.Envelope // the manifest's
	manifest *upgrade.Manifest
	digest   envelope.Digest // of the manifest
	patch    envelope.Digest // of the artifact
}

// readChange refuses an artifact that is not the manifest's. The proposer's
// signature is not verified here: that needs the registry.
func readChange(manifest, artifact string) (*change, error) {
	data, err := readFile(manifest, envelope.MaxWire)
	if err != nil {
		return nil, err
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", manifest, err)
	}
	m, err := upgrade.OpenManifest(env)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", manifest, err)
	}
	patch, err := hashFile(artifact)
	if err != nil {
		return nil, err
	}
	if patch != m.PatchHash {
		return nil, failure.New(failure.ArtifactMismatch, "%s is %s, but the manifest is about %s", artifact, patch, m.PatchHash)
	}
	return &change{env, m, env.PayloadDigest(), patch}, nil
}

// sayUnverified: words alone prove no proposer.
func (a *app) sayUnverified(c *change) {
	a.say("Without a registry the signature of %s, who is named as the proposer, is NOT verified.", c.manifest.ProposedBy)
}
