package pkcs11

import (
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"
)

// identity is what tells one token from another.
type identity struct{ manufacturer, model, serial, label string }

func identityOf(info p11.TokenInfo) identity {
	return identity{info.ManufacturerID, info.Model, info.SerialNumber, info.Label}
}

// pinned matches the very token that was found, so that recovery never takes
// another one. The slot is left out: tokens change slots.
func pinned(id identity) URI {
	return URI{Manufacturer: id.manufacturer, Model: id.model, Serial: id.serial, Token: id.label}
}

func (u URI) matches(slot uint, info p11.TokenInfo) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(u.Token, info.Label) && same(u.Serial, info.SerialNumber) &&
		same(u.Manufacturer, info.ManufacturerID) && same(u.Model, info.Model) &&
		(u.SlotID == nil || *u.SlotID == slot)
}

// findToken finds the one initialised token that u matches.
func findToken(c *p11.Ctx, u URI) (slot uint, info p11.TokenInfo, err error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, info, fmt.Errorf("list the slots: %w", err)
	}
	var found, others []string
	for _, s := range slots {
		i, err := c.GetTokenInfo(s)
		if err != nil || i.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue // a token that does not say what it is matches nothing
		}
		text := describeToken(i, s)
		if u.matches(s, i) {
			found = append(found, text)
			slot, info = s, i
		} else {
			others = append(others, text)
		}
	}
	switch len(found) {
	case 1:
		return slot, info, nil
	case 0:
		return 0, info, fmt.Errorf("%w; present: %s", errAbsent, list(others))
	}
	return 0, info, keyError("%d tokens match: %s; add serial= to the URI", len(found), list(found))
}

// describeToken quotes what the token says of itself: it goes to a terminal.
func describeToken(info p11.TokenInfo, slot uint) string {
	return fmt.Sprintf("%q (serial %q, slot %d)", info.Label, info.SerialNumber, slot)
}

func list(items []string) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Join(items, ", ")
}

// maxObjects bounds how many objects a search for one returns; more than one
// match is an error anyway.
const maxObjects = 32

// findObjects is one whole search for at most most objects; the search is
// always ended, since a session with one open refuses the next.
func findObjects(c *p11.Ctx, session p11.SessionHandle, most int, template ...*p11.Attribute) (found []p11.ObjectHandle, err error) {
	if err := c.FindObjectsInit(session, template); err != nil {
		return nil, fmt.Errorf("search objects: %w", err)
	}
	defer func() {
		if e := c.FindObjectsFinal(session); e != nil && err == nil {
			found, err = nil, fmt.Errorf("end a search of objects: %w", e)
		}
	}()
	for len(found) < most {
		some, _, err := c.FindObjects(session, most-len(found))
		if err != nil {
			return nil, fmt.Errorf("search objects: %w", err)
		}
		if len(some) == 0 {
			break
		}
		found = append(found, some...)
	}
	return found, nil
}

// findPrivateKey finds the one private key with this label and id; empty ones
// match any.
func findPrivateKey(c *p11.Ctx, session p11.SessionHandle, label string, id []byte) (p11.ObjectHandle, error) {
	found, err := findObjects(c, session, maxObjects, privateKey(label, id)...)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		others, err := findObjects(c, session, maxObjects, privateKey("", nil)...)
		if err != nil {
			return 0, err
		}
		return 0, noKeyError{list(describeAll(c, session, others))}
	}
	return 0, keyError("%d private keys match: %s; name one by id= and object=", len(found), list(describeAll(c, session, found)))
}

func privateKey(label string, id []byte) []*p11.Attribute {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}
	if label != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if len(id) > 0 {
		template = append(template, p11.NewAttribute(p11.CKA_ID, id))
	}
	return template
}

// noKeyError: no private key matches. It is a type of its own because a token
// that is on its way out looks just so.
type noKeyError struct{ present string }

func (e noKeyError) Error() string {
	return "no private key matches; the token has: " + e.present
}

func describeAll(c *p11.Ctx, session p11.SessionHandle, objects []p11.ObjectHandle) []string {
	var texts []string
	for _, o := range objects {
		label, _, err := attribute(c, session, o, p11.CKA_LABEL)
		if err != nil {
			label = []byte("?")
		}
		id, _, err := attribute(c, session, o, p11.CKA_ID)
		if err != nil {
			id = nil
		}
		texts = append(texts, fmt.Sprintf("%q (id=%s)", label, escapeAll(id)))
	}
	return texts
}

// attribute reads one attribute. ok is false where the object does not have
// it or does not tell it.
func attribute(c *p11.Ctx, session p11.SessionHandle, object p11.ObjectHandle, kind uint) (value []byte, ok bool, err error) {
	got, err := c.GetAttributeValue(session, object, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read attribute 0x%X: %w", kind, err)
	}
	return got[0].Value, len(got[0].Value) > 0, nil
}

// flag reads a boolean attribute; otherwise is its value where it is not told.
func flag(c *p11.Ctx, session p11.SessionHandle, object p11.ObjectHandle, kind uint, otherwise bool) (bool, error) {
	value, ok, err := attribute(c, session, object, kind)
	if err != nil || !ok {
		return otherwise, err
	}
	return value[0] != 0, nil
}
