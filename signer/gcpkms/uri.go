package gcpkms

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Scheme begins every URI of this package.
const Scheme = "gcpkms:"

// maxURI bounds the text that ParseURI looks at, in bytes.
const maxURI = 2048

const syntax = "gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N"

// None of the names needs percent-encoding, so a URI of this package has none.
var (
	nameForm = regexp.MustCompile(`^projects/[a-z0-9.:-]{1,63}/locations/[a-z0-9-]{1,63}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}/cryptoKeyVersions/[1-9][0-9]{0,9}$`)
	hostForm = regexp.MustCompile(`^[A-Za-z0-9.:-]{1,253}$`)
	portForm = regexp.MustCompile(`^[0-9]{1,5}$`)
)

// Protection is the least that holds a key.
type Protection string

// Protections of a URI. "" is ProtectionHSM, and any with Insecure.
const (
	ProtectionHSM      Protection = "hsm"
	ProtectionExternal Protection = "external" // a key manager outside Google Cloud
	ProtectionSoftware Protection = "software"
)

// URI names one key version of Cloud KMS:
//
//	gcpkms:NAME?endpoint=HOST:PORT&insecure=true&protection=LEVEL
//
// It holds no secret: credentials are the application default ones. The
// version fixes the algorithm.
type URI struct {
	Name     string // the version's full resource name
	Endpoint string // host:port instead of cloudkms.googleapis.com:443
	// Insecure: without TLS and credentials, for a test service on loopback.
	Insecure   bool
	Protection Protection
}

// ParseURI parses a gcpkms: URI. It refuses what it does not know.
func ParseURI(text string) (URI, error) {
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("gcpkms URI of %d bytes is longer than the %d that are read", len(text), maxURI)
	}
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return URI{}, errors.New("a Cloud KMS URI is " + syntax)
	}
	name, query, hasQuery := strings.Cut(rest, "?")
	if !nameForm.MatchString(name) {
		return URI{}, errors.New("gcpkms URI: the full resource name of one key version is wanted: " + syntax)
	}
	u := URI{Name: name}
	if hasQuery {
		seen := map[string]bool{}
		for part := range strings.SplitSeq(query, "&") {
			member, value, _ := strings.Cut(part, "=")
			if seen[member] {
				return URI{}, errors.New("gcpkms URI: a query member stands twice")
			}
			seen[member] = true
			if err := u.set(member, value); err != nil {
				return URI{}, fmt.Errorf("gcpkms URI: %w", err)
			}
		}
	}
	if u.Insecure && !isLoopback(u.Endpoint) {
		return URI{}, errors.New("gcpkms URI: insecure=true is for an endpoint on loopback alone")
	}
	return u, nil
}

func (u *URI) set(member, value string) error {
	switch member {
	case "endpoint":
		host, port, err := net.SplitHostPort(value)
		if err != nil || !hostForm.MatchString(host) || !portForm.MatchString(port) {
			return errors.New("endpoint is host:port")
		}
		u.Endpoint = value
	case "insecure":
		if value != "true" {
			return errors.New("insecure is true, or left out")
		}
		u.Insecure = true
	case "protection":
		switch p := Protection(value); p {
		case ProtectionHSM, ProtectionExternal, ProtectionSoftware:
			u.Protection = p
		default:
			return errors.New("protection is hsm, external or software")
		}
	default:
		return errors.New("unknown query member; known are endpoint, insecure, protection")
	}
	return nil
}

func isLoopback(endpoint string) bool {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// String is the URI; ParseURI of it gives u.
func (u URI) String() string {
	var query []string
	if u.Endpoint != "" {
		query = append(query, "endpoint="+u.Endpoint)
	}
	if u.Insecure {
		query = append(query, "insecure=true")
	}
	if u.Protection != "" {
		query = append(query, "protection="+string(u.Protection))
	}
	if len(query) == 0 {
		return Scheme + u.Name
	}
	return Scheme + u.Name + "?" + strings.Join(query, "&")
}
