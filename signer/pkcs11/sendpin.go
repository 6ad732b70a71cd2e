package pkcs11

/*
static unsigned long send_pin(void *login, unsigned long session, unsigned long user, const void *pin, unsigned long length)
{
	return ((unsigned long (*)(unsigned long, unsigned long, const void *, unsigned long))login)(session, user, pin, length);
}
*/
import "C"

import (
	"reflect"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// pinSender is a module's C_Login. The binding's own Login copies the PIN into
// C memory, which it frees and does not wipe; this one hands the module the
// very bytes, which the caller wipes.
type pinSender struct{ login unsafe.Pointer }

// newPINSender finds C_Login in the list of functions that the binding holds.
// Another list would not do: p11-kit's client hands out a new one, not yet
// initialised, each time it is asked.
func newPINSender(c *p11.Ctx) pinSender {
	list := reflect.ValueOf(c).Elem().FieldByName("ctx").Elem().FieldByName("sym").Elem()
	return pinSender{list.FieldByName("C_Login").UnsafePointer()}
}

// send is C_Login with pin, or, where pin is nil, with none, as a token with a
// keypad of its own wants it.
func (p pinSender) send(session p11.SessionHandle, user uint, pin []byte) error {
	rv := C.send_pin(p.login, C.ulong(session), C.ulong(user), unsafe.Pointer(unsafe.SliceData(pin)), C.ulong(len(pin)))
	if rv != p11.CKR_OK {
		return p11.Error(rv)
	}
	return nil
}
