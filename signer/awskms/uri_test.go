package awskms_test

import (
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
)

const (
	id  = "1234abcd-12ab-34cd-56ef-1234567890ab"
	arn = "arn:aws:kms:us-east-2:111122223333:"
)

func TestParseURI(t *testing.T) {
	for text, want := range map[string]awskms.URI{
		"awskms:" + id: {Key: id},
		"awskms:alias/a-b_c/d?region=eu-central-1":          {Key: "alias/a-b_c/d", Region: "eu-central-1"},
		"awskms:" + arn + "key/" + id:                       {Key: arn + "key/" + id, Region: "us-east-2"},
		"awskms:" + arn + "alias/x?region=us-east-2":        {Key: arn + "alias/x", Region: "us-east-2"},
		"awskms:mrk-1234abcd12ab34cd56ef1234567890ab":       {Key: "mrk-1234abcd12ab34cd56ef1234567890ab"},
		"awskms:" + id + "?endpoint=http://127.0.0.1:80":    {Key: id, Endpoint: "http://127.0.0.1:80"},
		"awskms:" + id + "?endpoint=http://[::1]:80":        {Key: id, Endpoint: "http://[::1]:80"},
		"awskms:" + id + "?algorithm=ed25519&profile=a.b@c": {Key: id, Profile: "a.b@c", Algorithm: signer.Ed25519},
	} {
		got, err := awskms.ParseURI(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
			continue
		}
		if again, err := awskms.ParseURI(got.String()); err != nil || again != got {
			t.Errorf("%s: String %s gives %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "awskms:", "AWSKMS:" + id, "awskms:" + id + "?", "awskms:" + id + "#x", "awskms:alias/", "awskms://" + id,
		"awskms:" + id + "?region=", "awskms:" + id + "?region=a&region=a", "awskms:" + id + "?region=a&", "awskms:" + id + "?x=y",
		"awskms:" + arn + "key/" + id + "?region=eu-west-1", "awskms:" + arn + "key/x", "awskms:" + id + "?profile=a%20b",
		"awskms:" + id + "?endpoint=http://example.org", "awskms:" + id + "?endpoint=https://a/b", "awskms:" + id + "?endpoint=https://u:p@a",
		"awskms:" + id + "?endpoint=https://a?q", "awskms:" + id + "?algorithm=md5", "awskms:" + id + "\n",
		"awskms:" + id + "?profile=" + strings.Repeat("a", 3000)} {
		if u, err := awskms.ParseURI(text); err == nil {
			t.Errorf("%q is accepted: %+v", text, u)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("awskms:" + arn + "key/" + id + "?endpoint=https://h:1&profile=p&algorithm=ed25519")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := awskms.ParseURI(text)
		if err != nil {
			return
		}
		if again, err := awskms.ParseURI(u.String()); err != nil || again != u {
			t.Fatalf("%q: String %q gives %+v, %v", text, u, again, err)
		}
	})
}
