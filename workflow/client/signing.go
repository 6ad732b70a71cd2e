package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

const signingPath = "v1/signing-requests"

// SigningRequests are your own, and whether an agent of yours is connected.
func (c *Client) SigningRequests(ctx context.Context) (SigningRequests, error) {
	var list SigningRequests
	err := c.call(ctx, http.MethodGet, signingPath, nil, nil, &list)
	return list, err
}

// AskSigning asks your own machine to sign.
func (c *Client) AskSigning(ctx context.Context, wish NewSigningRequest) (SigningRequest, error) {
	var r SigningRequest
	err := c.post(ctx, signingPath, wish, &r)
	return r, err
}

// ReportSigning says what became of a request of yours.
func (c *Client) ReportSigning(ctx context.Context, id string, state SigningState, detail string) (SigningRequest, error) {
	report := SigningReport{State: state}
	if detail != "" {
		report.Detail = &detail
	}
	var r SigningRequest
	err := c.post(ctx, signingPath+"/"+id, report, &r)
	return r, err
}

func (c *Client) post(ctx context.Context, path string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return c.call(ctx, http.MethodPost, path, nil, data, out)
}

// WatchSigning hands each request that waits for you to f; after a broken
// connection the same one can come again. While it runs you count as having an
// agent. connected is called at each connection. It ends as Watch does.
func (c *Client) WatchSigning(ctx context.Context, connected func(), f func(SigningRequest) error) error {
	return c.again(ctx, func() (moved bool, err error) {
		err = c.lines(ctx, signingPath, nil, func(line string) error {
			if !moved {
				moved = true
				connected()
			}
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				return nil
			}
			var r SigningRequest
			if err := json.Unmarshal([]byte(data), &r); err != nil {
				return fmt.Errorf("gateway: a signing request is not what the API says: %w", err)
			}
			if err := f(r); err != nil {
				return stopped{err}
			}
			return nil
		})
		return moved, err
	})
}
