package awskms

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/kernelgate/kernelgate/signer"
)

// Scheme begins every URI of this package.
const Scheme = "awskms:"

// maxURI bounds the text that ParseURI looks at, in bytes.
const maxURI = 2048

const syntax = "awskms:KEY?region=REGION, where KEY is a key id, alias/NAME, or an ARN of either"

// What KMS calls its keys. None of it needs percent-encoding, so a URI of this
// package has none.
var (
	keyForm     = regexp.MustCompile(`^(?:` + id + `|` + alias + `|arn:aws[a-z-]{0,20}:kms:([a-z0-9-]{1,32}):[0-9]{12}:(?:key/` + id + `|` + alias + `))$`)
	regionForm  = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	profileForm = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,64}$`)
)

const (
	id    = `(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})`
	alias = `alias/[A-Za-z0-9/_-]{1,250}`
)

// URI names one asymmetric key of AWS KMS:
//
//	awskms:KEY?region=REGION&endpoint=URL&profile=NAME&algorithm=ALGORITHM
//
// It holds no secret: credentials come from the AWS SDK's default chain.
type URI struct {
	// Key is a key id, alias/NAME, or an ARN of either.
	Key string
	// Region is from the ARN where the URI has no region; "" is the profile's
	// or the environment's.
	Region string
	// Endpoint, if set, is where KMS is asked instead of the region's own
	// address: https://host[:port], or http:// on loopback, without a path.
	Endpoint string
	// Profile, if set, is of the shared AWS configuration.
	Profile string
	// Algorithm "" is the key's default (RSA: rsa-pss-sha256).
	Algorithm signer.Algorithm
}

// ParseURI parses an awskms: URI. It refuses what it does not know.
func ParseURI(text string) (URI, error) {
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("awskms URI of %d bytes is longer than the %d that are read", len(text), maxURI)
	}
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return URI{}, errors.New("an AWS KMS URI is " + syntax)
	}
	name, query, hasQuery := strings.Cut(rest, "?")
	match := keyForm.FindStringSubmatch(name)
	if match == nil {
		return URI{}, errors.New("the key's name is none of AWS KMS; the URI is " + syntax)
	}
	u := URI{Key: name}
	if hasQuery {
		seen := map[string]bool{}
		for part := range strings.SplitSeq(query, "&") {
			member, value, _ := strings.Cut(part, "=")
			if seen[member] {
				return URI{}, errors.New("awskms URI: a query member stands twice")
			}
			seen[member] = true
			if err := u.set(member, value); err != nil {
				return URI{}, fmt.Errorf("awskms URI: %w", err)
			}
		}
	}
	if inARN := match[1]; inARN != "" {
		if u.Region != "" && u.Region != inARN {
			return URI{}, fmt.Errorf("awskms URI: region=%s is not the ARN's, %s", u.Region, inARN)
		}
		u.Region = inARN
	}
	return u, nil
}

func (u *URI) set(member, value string) error {
	switch member {
	case "region":
		if !regionForm.MatchString(value) {
			return errors.New("region is a name such as eu-central-1")
		}
		u.Region = value
	case "profile":
		if !profileForm.MatchString(value) {
			return errors.New("profile is up to 64 letters, digits and _.@-")
		}
		u.Profile = value
	case "endpoint":
		if err := checkEndpoint(value); err != nil {
			return err
		}
		u.Endpoint = value
	case "algorithm":
		switch a := signer.Algorithm(value); a {
		case signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
			u.Algorithm = a
		default:
			return errors.New("unknown algorithm")
		}
	default:
		return errors.New("unknown query member; known are region, endpoint, profile, algorithm")
	}
	return nil
}

// checkEndpoint refuses what could hold a secret or lead elsewhere, and HTTP
// without TLS to another machine.
func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme+"://"+u.Host != text || strings.ContainsAny(text, "%#&") {
		return errors.New("endpoint is https://host or https://host:port, without user, path or query")
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(text) {
		return nil
	}
	return errors.New("endpoint is https://; http:// only on loopback, for tests")
}

// isLoopback reports whether an endpoint is on this machine, by its text alone.
func isLoopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && net.IP(address.AsSlice()).IsLoopback()
}

// String is the URI; ParseURI of it gives u.
func (u URI) String() string {
	var query []string
	add := func(name, value string) {
		if value != "" {
			query = append(query, name+"="+value)
		}
	}
	if !strings.HasPrefix(u.Key, "arn:") { // an ARN says its region
		add("region", u.Region)
	}
	add("endpoint", u.Endpoint)
	add("profile", u.Profile)
	add("algorithm", string(u.Algorithm))
	if len(query) == 0 {
		return Scheme + u.Key
	}
	return Scheme + u.Key + "?" + strings.Join(query, "&")
}
