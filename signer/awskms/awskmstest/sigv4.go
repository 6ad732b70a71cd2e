package awskmstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	sigv4      = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	maxSkew    = 5 * time.Minute
)

// checkSignature verifies a request's Signature Version 4
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
func checkSignature(r *http.Request, body []byte, now time.Time) error {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), sigv4+" ")
	if !ok {
		return fail("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[name] = value
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(timeFormat, date)
	if err != nil {
		return fail("IncompleteSignatureException", "no X-Amz-Date")
	}
	scope := date[:8] + "/" + Region + "/kms/aws4_request"
	accessKey, gotScope, _ := strings.Cut(parts["Credential"], "/")
	if accessKey != AccessKeyID {
		return fail("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if gotScope != scope {
		return fail("InvalidSignatureException", "Credential should be scoped to "+scope)
	}
	if d := now.Sub(at); d > maxSkew || d < -maxSkew {
		return fail("InvalidSignatureException", "Signature expired: "+date+" is too far from "+now.UTC().Format(timeFormat))
	}
	signed := strings.Split(parts["SignedHeaders"], ";")
	if err := checkSigned(r, signed); err != nil {
		return err
	}
	want := signature(date, scope, canonicalRequest(r, body, signed))
	got, err := hex.DecodeString(parts["Signature"])
	if err != nil || !hmac.Equal(got, want) {
		return fail("InvalidSignatureException", "The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

// checkSigned wants every header signed that the service acts on.
func checkSigned(r *http.Request, signed []string) error {
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") {
		return fail("IncompleteSignatureException", "signed headers are sorted and hold host")
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(signed, name) {
			return fail("InvalidSignatureException", name+" is not signed")
		}
	}
	return nil
}

func canonicalRequest(r *http.Request, body []byte, signed []string) string {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + path + "\n" + r.URL.Query().Encode() + "\n")
	for _, name := range signed {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	sum := sha256.Sum256(body)
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hex.EncodeToString(sum[:]))
	return b.String()
}

func signature(date, scope, canonical string) []byte {
	sum := sha256.Sum256([]byte(canonical))
	toSign := sigv4 + "\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + SecretAccessKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	return mac(key, toSign)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
