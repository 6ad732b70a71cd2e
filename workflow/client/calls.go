package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Submit posts a signed record. Posting it again is harmless.
func (c *Client) Submit(ctx context.Context, env envelope.Envelope) (Receipt, error) {
	var receipt Receipt
	err := c.call(ctx, http.MethodPost, "v1/records", nil, env.Bytes(), &receipt)
	return receipt, err
}

// RequestApprovals opens a draft for approvals.
func (c *Client) RequestApprovals(ctx context.Context, id envelope.UUID) (Upgrade, error) {
	var u Upgrade
	err := c.call(ctx, http.MethodPost, upgradePath(id)+"/approval-request", nil, nil, &u)
	return u, err
}

// Upgrade is an upgrade with its records.
func (c *Client) Upgrade(ctx context.Context, id envelope.UUID) (UpgradeDetail, error) {
	var d UpgradeDetail
	err := c.call(ctx, http.MethodGet, upgradePath(id), nil, nil, &d)
	return d, err
}

// Upgrades is one page of upgrades; the zero params ask for the first.
func (c *Client) Upgrades(ctx context.Context, p ListUpgradesParams) (UpgradePage, error) {
	query := url.Values{}
	if p.State != nil {
		for _, state := range *p.State {
			query.Add("state", string(state))
		}
	}
	if p.Target != nil {
		query.Set("target", *p.Target)
	}
	if p.Cursor != nil {
		query.Set("cursor", *p.Cursor)
	}
	if p.Limit != nil {
		query.Set("limit", strconv.Itoa(int(*p.Limit)))
	}
	var page UpgradePage
	err := c.call(ctx, http.MethodGet, "v1/upgrades", query, nil, &page)
	return page, err
}

// PreviewPolicy is what the policy would say about a manifest that is not
// signed yet, as the gateway says.
func (c *Client) PreviewPolicy(ctx context.Context, m upgrade.Manifest) (PolicyPreview, error) {
	var p PolicyPreview
	body, err := json.Marshal(m)
	if err != nil {
		return p, fmt.Errorf("manifest: %w", err)
	}
	err = c.call(ctx, http.MethodPost, "v1/policy/preview", nil, body, &p)
	return p, err
}

// Bundle is the bundle file; upgrade.VerifyFile judges it.
func (c *Client) Bundle(ctx context.Context, id envelope.UUID) ([]byte, error) {
	return c.bytes(ctx, http.MethodGet, upgradePath(id)+"/bundle", nil, nil)
}

// UpgradeEvents are an upgrade's audit events, oldest first.
func (c *Client) UpgradeEvents(ctx context.Context, id envelope.UUID) ([]Event, error) {
	var page EventPage
	err := c.call(ctx, http.MethodGet, upgradePath(id)+"/events", nil, nil, &page)
	return page.Events, err
}

// Events is one page of the audit log from a seq on.
func (c *Client) Events(ctx context.Context, from int64, limit int) (EventPage, error) {
	query := url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {strconv.Itoa(limit)}}
	var page EventPage
	err := c.call(ctx, http.MethodGet, "v1/events", query, nil, &page)
	return page, err
}

// Checkpoint is the newest signed note; auditlog.OpenCheckpoint judges it.
func (c *Client) Checkpoint(ctx context.Context) (string, error) {
	note, err := c.bytes(ctx, http.MethodGet, "v1/checkpoint", nil, nil)
	return string(note), err
}

// Registry is the chain of registry entries; keyregistry.AcceptChain judges it.
func (c *Client) Registry(ctx context.Context) ([]keyregistry.SignedDocument, error) {
	chain, err := c.RegistryChain(ctx)
	return chain.Entries, err
}

// RegistryChain is the chain with the suspensions under its last document.
func (c *Client) RegistryChain(ctx context.Context) (RegistryChain, error) {
	var chain RegistryChain
	err := c.call(ctx, http.MethodGet, "v1/registry", nil, nil, &chain)
	return chain, err
}

// Target is what is live at a target, as the gateway says.
func (c *Client) Target(ctx context.Context, name envelope.ID) (Target, error) {
	var t Target
	err := c.call(ctx, http.MethodGet, "v1/targets/"+string(name), nil, nil, &t)
	return t, err
}

// Ready are the gateway's own checks. That it is not ready is no error.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	var r Readiness
	answer, err := c.send(ctx, http.MethodGet, "readyz", nil, nil, nil)
	if err != nil {
		return r, err
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusServiceUnavailable {
		return r, errors.Join(problemOf(answer), answer.Body.Close())
	}
	data, err := readAll(answer)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil || len(r.Checks) == 0 {
		return r, fmt.Errorf("%w: its readiness is not what the API says", ErrUnavailable)
	}
	return r, nil
}

// PublishRegistry puts the next registry document into force.
func (c *Client) PublishRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	body, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("registry entry: %w", err)
	}
	return c.call(ctx, http.MethodPost, "v1/registry", nil, body, nil)
}

// PutArtifact uploads an artifact and returns the digest of the bytes that
// were sent, hashed here. It fails where the gateway has stored others.
func (c *Client) PutArtifact(ctx context.Context, r io.Reader) (envelope.Digest, error) {
	hash := sha256.New()
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	answer, err := c.do(ctx, http.MethodPut, "v1/artifacts", nil, header, io.TeeReader(r, hash))
	if err != nil {
		return envelope.Digest{}, err
	}
	data, err := readAll(answer)
	if err != nil {
		return envelope.Digest{}, err
	}
	var stored Artifact
	if err := json.Unmarshal(data, &stored); err != nil {
		return envelope.Digest{}, fmt.Errorf("gateway: its answer is not what the API says: %w", err)
	}
	digest := envelope.Digest(hash.Sum(nil))
	if stored.Digest != digest.String() {
		return envelope.Digest{}, failure.New(failure.ArtifactMismatch, "%s was sent, but the gateway stored %s", digest, stored.Digest)
	}
	return digest, nil
}

// GetArtifact writes an artifact to w. On an error, artifact_mismatch
// included, what was written is worth nothing.
func (c *Client) GetArtifact(ctx context.Context, digest envelope.Digest, w io.Writer) (err error) {
	answer, err := c.do(ctx, http.MethodGet, "v1/artifacts/"+digest.String(), nil, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	hash := sha256.New()
	body := &brokenOff{r: answer.Body}
	if _, err := io.Copy(io.MultiWriter(w, hash), body); err != nil {
		return err
	}
	if got := envelope.Digest(hash.Sum(nil)); got != digest {
		return failure.New(failure.ArtifactMismatch, "the gateway sent %s for %s", got, digest)
	}
	return nil
}

func upgradePath(id envelope.UUID) string { return "v1/upgrades/" + string(id) }
