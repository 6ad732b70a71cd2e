package pkcs11

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kernelgate/kernelgate/signer"
)

// Scheme begins every URI of this package.
const Scheme = "pkcs11:"

// maxURI bounds the text that ParseURI looks at, in bytes.
const maxURI = 4096

// maxSessionsLimit bounds max-sessions; no token known has use for more.
const maxSessionsLimit = 1024

// URI names one private key in one token (RFC 7512). Empty fields match
// anything; what they match together must be exactly one key.
type URI struct {
	Token, Serial, Manufacturer, Model string // CK_TOKEN_INFO, without padding
	SlotID                             *uint
	Object                             string // CKA_LABEL
	ID                                 []byte // CKA_ID
	ModulePath                         string // absolute path of the module
	PINSource                          PINSource
	Algorithm                          signer.Algorithm // "": the key's default
	MaxSessions                        int              // 0: DefaultMaxSessions
}

// ParseURI parses an RFC 7512 URI. It refuses what it does not know: an
// attribute that was silently dropped could match another key. Beyond the RFC
// it knows the query attributes algorithm (see signer.Algorithm) and
// max-sessions, and the pin-source schemes env: and credential:.
func ParseURI(text string) (URI, error) {
	var u URI
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("pkcs11 URI of %d bytes is longer than the %d that are read", len(text), maxURI)
	}
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return URI{}, errors.New("a PKCS#11 URI begins with pkcs11: in lower case")
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := eachAttribute(path, ";", u.setPath); err != nil {
		return URI{}, err
	}
	if err := eachAttribute(query, "&", u.setQuery); err != nil {
		return URI{}, err
	}
	if u.ModulePath == "" {
		return URI{}, errors.New("pkcs11 URI names no module: add ?module-path=/path/to/module.so")
	}
	return u, nil
}

// eachAttribute calls set for each name=value, decoded, and refuses repeats.
// Errors name the attribute but never its value, which may be a secret.
func eachAttribute(text, separator string, set func(name, value string) error) error {
	if text == "" {
		return nil
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(text, separator) {
		name, raw, ok := strings.Cut(part, "=")
		if !ok || raw == "" {
			return fmt.Errorf("pkcs11 URI: each attribute is name=value, with a value; %q is not", attributeName(name))
		}
		if seen[name] {
			return fmt.Errorf("pkcs11 URI: attribute %q stands twice", attributeName(name))
		}
		seen[name] = true
		value, err := unescape(raw)
		if err != nil {
			return fmt.Errorf("pkcs11 URI: attribute %q: %w", attributeName(name), err)
		}
		if name != "id" && (!utf8.ValidString(value) || strings.ContainsRune(value, 0)) {
			return fmt.Errorf("pkcs11 URI: attribute %q is not UTF-8 text", attributeName(name))
		}
		if err := set(name, value); err != nil {
			return fmt.Errorf("pkcs11 URI: %w", err)
		}
	}
	return nil
}

// attributeName cuts what stands where a name should, so that an error never
// repeats a long or secret value.
func attributeName(name string) string {
	for i, r := range name {
		if r != '-' && (r < 'a' || r > 'z') || i > 24 {
			return name[:i] + "..."
		}
	}
	return name
}

func (u *URI) setPath(name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "serial":
		u.Serial = value
	case "manufacturer":
		u.Manufacturer = value
	case "model":
		u.Model = value
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "type":
		if value != "private" {
			return errors.New("a signing key has type=private")
		}
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return errors.New("slot-id is a decimal number")
		}
		slot := uint(n)
		u.SlotID = &slot
	default:
		return fmt.Errorf("unknown attribute %q; known are token, serial, manufacturer, model, slot-id, object, id, type", attributeName(name))
	}
	return nil
}

func (u *URI) setQuery(name, value string) (err error) {
	switch name {
	case "module-path":
		if !strings.HasPrefix(value, "/") {
			return errors.New("module-path is an absolute path")
		}
		u.ModulePath = value
	case "pin-source":
		u.PINSource, err = parsePINSource(value)
	case "pin-value":
		return errors.New("pin-value is refused: URIs end up in logs, configuration and process lists; use pin-source=file:/path, env:NAME or credential:NAME")
	case "algorithm":
		u.Algorithm, err = parseAlgorithm(value)
	case "max-sessions":
		u.MaxSessions, err = strconv.Atoi(value)
		if err != nil || u.MaxSessions < 1 || u.MaxSessions > maxSessionsLimit {
			return fmt.Errorf("max-sessions is a number from 1 to %d", maxSessionsLimit)
		}
	case "module-name":
		return errors.New("module-name is not supported: give the module's absolute path as module-path")
	default:
		return fmt.Errorf("unknown query attribute %q; known are module-path, pin-source, algorithm, max-sessions", attributeName(name))
	}
	return err
}

func parseAlgorithm(value string) (signer.Algorithm, error) {
	switch a := signer.Algorithm(value); a {
	case signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return a, nil
	}
	return "", fmt.Errorf("algorithm is one of %s, %s, %s, %s, %s", signer.ECDSAP256SHA256, signer.ECDSAP384SHA384,
		signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256)
}

// Text is the whole URI in its normal form; ParseURI(u.Text()) gives u. It
// holds the pin-source: for configuration, not for logs.
func (u URI) Text() string { return u.text(u.PINSource.String()) }

// String is the URI for logs and errors: where the PIN is kept is left out.
func (u URI) String() string {
	if u.PINSource.IsZero() {
		return u.text("")
	}
	return u.text("REDACTED")
}

// GoString keeps %#v from printing the fields.
func (u URI) GoString() string { return u.String() }

// LogValue keeps structured loggers from printing the fields.
func (u URI) LogValue() slog.Value { return slog.StringValue(u.String()) }

func (u URI) text(pinSource string) string {
	var path, query []string
	add := func(list *[]string, name, value string) {
		if value != "" {
			*list = append(*list, name+"="+escape(value))
		}
	}
	add(&path, "token", u.Token)
	add(&path, "manufacturer", u.Manufacturer)
	add(&path, "serial", u.Serial)
	add(&path, "model", u.Model)
	if u.SlotID != nil {
		add(&path, "slot-id", strconv.FormatUint(uint64(*u.SlotID), 10))
	}
	add(&path, "object", u.Object)
	if len(u.ID) > 0 {
		path = append(path, "id="+escapeAll(u.ID))
	}
	path = append(path, "type=private")
	add(&query, "module-path", u.ModulePath)
	add(&query, "pin-source", pinSource)
	add(&query, "algorithm", string(u.Algorithm))
	if u.MaxSessions > 0 {
		add(&query, "max-sessions", strconv.Itoa(u.MaxSessions))
	}
	return Scheme + strings.Join(path, ";") + "?" + strings.Join(query, "&")
}
