package artifact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	_ "gocloud.dev/blob/s3blob" // registers the scheme s3
)

const (
	schemeS3   = "s3"
	sweepEvery = 6 * time.Hour
	// orphanAge is after how long an upload that was not completed is nobody's:
	// longer than a Put of the largest object that is reasonable may take.
	orphanAge = 7 * 24 * time.Hour
)

// CheckURL refuses a URL that OpenBlob knows no storage for, and one by which
// artifacts would travel over a network in the clear.
func CheckURL(u *url.URL) error {
	if u.Scheme != schemeS3 {
		return fmt.Errorf("%s is not a store that this version knows; name a directory or s3://BUCKET", u.Scheme)
	}
	if u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("a store's URL is s3://BUCKET or s3://BUCKET/PREFIX, then options such as ?region=, and no password")
	}
	q := u.Query()
	endpoint, err := url.Parse(q.Get("endpoint"))
	if err != nil {
		return errors.New("endpoint is no URL")
	}
	plain := endpoint.Scheme == "http" || q.Has("disable_https")
	if plain && !loopback(endpoint.Hostname()) {
		return errors.New("the store is reached without TLS, which is for an endpoint on this machine alone")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sweep removes, now and then, the uploads that a gateway began and never
// completed: S3 keeps their parts, which nobody sees, for ever.
func (b *Blob) sweep(ctx context.Context, bucket, prefix string, logger *slog.Logger) {
	var client *s3.Client
	if !b.bucket.As(&client) {
		return
	}
	for ctx.Err() == nil {
		removed, err := removeOrphans(ctx, client, bucket, prefix, time.Now().Add(-orphanAge))
		if err != nil && ctx.Err() == nil {
			logger.WarnContext(ctx, "uploads that were broken off could not be removed from the artifact store", "bucket", bucket, "err", err)
		}
		if removed > 0 {
			logger.InfoContext(ctx, "uploads that were broken off were removed from the artifact store", "bucket", bucket, "uploads", removed)
		}
		t := time.NewTimer(sweepEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// removeOrphans aborts the multipart uploads below a prefix that began before a time.
func removeOrphans(ctx context.Context, client *s3.Client, bucket, prefix string, before time.Time) (removed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	pages := s3.NewListMultipartUploadsPaginator(client, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return removed, err
		}
		for _, u := range page.Uploads {
			if u.Initiated == nil || !u.Initiated.Before(before) {
				continue
			}
			if _, err := client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId}); err != nil {
				return removed, err
			}
			removed++
		}
	}
	return removed, nil
}
