package keyregistry

import (
	"encoding/base64"
	"regexp"
	"strings"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/signer/webauthn"
)

// The ranges of PROTOCOL section 5, in seconds.
const (
	minSeconds      = 3600
	minTestSeconds  = 1
	maxApprovalTTL  = 30 * 86400
	maxRatification = 7 * 86400
)

// ParseDocument parses a document's canonical bytes and checks all that it
// says by itself; whether it may follow another is Accept's to say. Classes:
// those of envelope.DecodeCanonical, field_invalid, registry_invalid,
// registry_key_reused.
func ParseDocument(data []byte) (*Document, error) {
	d := new(Document)
	if err := envelope.DecodeCanonical(data, MaxDocument, d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

func invalid(format string, args ...any) error {
	return failure.New(failure.RegistryInvalid, format, args...)
}

func (d *Document) check() error {
	if err := envelope.CheckInt("version", d.Version, 1, envelope.MaxInt); err != nil {
		return err
	}
	if (d.Version == 1) != (d.Previous == nil) {
		return invalid("previous is left out at version 1, and only there")
	}
	if err := d.checkRules(); err != nil {
		return err
	}
	if err := d.checkPeople(); err != nil {
		return err
	}
	if err := d.checkKernel(); err != nil {
		return err
	}
	return d.checkUnique()
}

func (d *Document) checkRules() error {
	least := int64(minSeconds)
	if d.Test {
		least = minTestSeconds
	}
	r := d.Rules
	for _, err := range []error{
		envelope.CheckInt("rules.approvalTtlSeconds", r.ApprovalTTLSeconds, least, maxApprovalTTL),
		envelope.CheckInt("rules.ratificationWindowSeconds", r.RatificationWindowSeconds, least, maxRatification),
		envelope.CheckInt("rules.minNonBrowserApprovals", r.MinNonBrowserApprovals, 0, Quorum),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkPeople() error {
	if len(d.Approvers) != PoolSize {
		return invalid("%d approvers; the pool is %d", len(d.Approvers), PoolSize)
	}
	superAdmins := 0
	people := make([]Person, 0, len(d.Approvers))
	for i := range d.Approvers {
		a := &d.Approvers[i]
		switch a.Role {
		case SuperAdmin:
			superAdmins++
		case SecurityEngineer, TechnicalLead, DivisionLead:
		default:
			return invalid("approver %s has the unknown role %.40q", a.ID, a.Role)
		}
		people = append(people, Person{ID: a.ID, Keys: a.Keys, Name: a.Name})
	}
	if superAdmins != 1 {
		return invalid("%d approvers are superadmin; exactly one must be", superAdmins)
	}
	for _, list := range [][]Person{people, d.Requestors, d.CI} {
		if err := d.checkList(list); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkList(people []Person) error {
	for i := range people {
		p := &people[i]
		if p.ID == KernelHolder {
			return invalid("the ID %q is the Kernel's own", KernelHolder)
		}
		if i > 0 && people[i-1].ID >= p.ID {
			return invalid("%s stands after %s: people are sorted by id, each once", p.ID, people[i-1].ID)
		}
		if err := envelope.CheckText("name", p.Name, 80); err != nil {
			return err
		}
		if n := len(p.Keys); n < 1 || n > MaxKeys {
			return invalid("%s has %d keys, where 1 to %d are allowed", p.ID, n, MaxKeys)
		}
		for j := range p.Keys {
			if j > 0 && p.Keys[j-1].KeyID >= p.Keys[j].KeyID {
				return invalid("the keys of %s are not sorted by keyId, each once", p.ID)
			}
			if err := d.checkKey(&p.Keys[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Document) checkKernel() error {
	for kind, keys := range [][]Key{d.Kernel.Records, d.Kernel.Audit} {
		if n := len(keys); n < 1 || n > MaxKernelKeys {
			return invalid("the Kernel has %d %s keys, where 1 to %d are allowed", n, [...]string{"records", "audit"}[kind], MaxKernelKeys)
		}
		for i := range keys {
			if err := d.checkKey(&keys[i]); err != nil {
				return err
			}
			if keys[i].WebAuthn != nil {
				return invalid("a key of the Kernel cannot sign in a browser")
			}
		}
	}
	for i := range d.Kernel.Audit {
		if d.Kernel.Audit[i].Algorithm != signer.Ed25519 {
			return invalid("the Kernel's audit keys are ed25519")
		}
	}
	return nil
}

func (d *Document) checkKey(k *Key) error {
	public, err := signer.ParsePublicKey(k.PublicKey)
	if err != nil {
		return err
	}
	if public.KeyID() != string(k.KeyID) {
		return invalid("key %s is named by another keyId than its SHA-256", k.KeyID)
	}
	if !k.Algorithm.Fits(public.Key()) {
		return invalid("algorithm %.40q does not fit key %s", k.Algorithm, k.KeyID)
	}
	if k.NotAfter.Before(k.NotBefore) {
		return invalid("key %s ends before it begins", k.KeyID)
	}
	switch k.Origin {
	case OriginPKCS11, OriginAWSKMS, OriginGCPKMS, OriginWebAuthn:
	case OriginFile:
		if !d.Test {
			return invalid("key %s is in a file, which only a test registry allows", k.KeyID)
		}
	default:
		return invalid("key %s has the unknown origin %.40q", k.KeyID, k.Origin)
	}
	if (k.Origin == OriginWebAuthn) != (k.WebAuthn != nil) {
		return invalid("key %s: a webauthn member stands exactly where origin is webauthn", k.KeyID)
	}
	if k.WebAuthn != nil {
		if err := d.checkWebAuthn(k.Algorithm, k.WebAuthn); err != nil {
			return err
		}
	}
	k.public = public
	return nil
}

// What an origin is, as browsers write it: scheme, host and a port that is not
// the default; no path.
var (
	secureOrigin    = regexp.MustCompile(`^https://[a-zA-Z0-9.-]{1,253}(:[0-9]{1,5})?$`)
	localhostOrigin = regexp.MustCompile(`^http://localhost(:[0-9]{1,5})?$`)
)

func (d *Document) checkWebAuthn(algorithm signer.Algorithm, c *webauthn.Credential) error {
	if algorithm != signer.ECDSAP256SHA256 && algorithm != signer.Ed25519 {
		return invalid("a key with webauthn is ecdsa-p256-sha256 or ed25519")
	}
	raw, err := base64.RawURLEncoding.DecodeString(c.CredentialID)
	if err != nil || len(raw) == 0 || base64.RawURLEncoding.EncodeToString(raw) != c.CredentialID {
		return invalid("webauthn.credentialId is not unpadded base64url")
	}
	if c.RPID == "" || len(c.RPID) > 253 || strings.ContainsFunc(c.RPID, isNotVisibleASCII) {
		return invalid("webauthn.rpId is not a domain")
	}
	if n := len(c.Origins); n < 1 || n > 8 {
		return invalid("webauthn.origins has %d entries, where 1 to 8 are allowed", n)
	}
	for _, o := range c.Origins {
		if !secureOrigin.MatchString(o) && (!d.Test || !localhostOrigin.MatchString(o)) {
			return invalid("webauthn origin %.200q is not https (nor, in a test registry, http on localhost)", o)
		}
	}
	return nil
}

func isNotVisibleASCII(r rune) bool { return r <= ' ' || r > '~' }

// checkUnique refuses an ID or a key that stands twice, under any name:
// identity is the key's material.
func (d *Document) checkUnique() error {
	ids := make(map[envelope.ID]bool)
	keys := make(map[envelope.KeyID]bool)
	for h := range d.holders() {
		if h.Kind != KindKernelRecords && h.Kind != KindKernelAudit {
			if ids[h.ID] {
				return invalid("the ID %s stands twice", h.ID)
			}
			ids[h.ID] = true
		}
		for i := range h.keys {
			id := h.keys[i].KeyID
			if keys[id] {
				return failure.New(failure.RegistryKeyReused, "key %s stands twice", id)
			}
			keys[id] = true
		}
	}
	for i, r := range d.Retired {
		if i > 0 && d.Retired[i-1].KeyID >= r.KeyID {
			return invalid("retired keys are not sorted by keyId, each once")
		}
		if keys[r.KeyID] {
			return failure.New(failure.RegistryKeyReused, "key %s is retired and never counts again", r.KeyID)
		}
	}
	return nil
}
