package upgrade_test

import (
	"bytes"
	"encoding"
	"reflect"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Bytes leaves the sorting of RFC 8785 out, since all that a bundle is made of
// has its members in order, and none is a number.
func TestBundleIsWrittenInOrder(t *testing.T) {
	seen := map[reflect.Type]bool{}
	texts := reflect.TypeFor[encoding.TextMarshaler]()
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		if seen[of] || of.Implements(texts) {
			return
		}
		seen[of] = true
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(of.Elem())
		case reflect.Struct:
			last := ""
			for i := range of.NumField() {
				name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
				if name <= last {
					t.Errorf("%s: member %q stands after %q", of, name, last)
				}
				last = name
				walk(of.Field(i).Type)
			}
		case reflect.String, reflect.Bool, reflect.Uint8: // Uint8: of []byte
		default:
			t.Errorf("%s is a %s", of, of.Kind())
		}
	}
	walk(reflect.TypeFor[upgrade.QuorumBundle]())
	if len(seen) < 10 {
		t.Errorf("only %d types were seen", len(seen))
	}
	var all strings.Builder
	for r := range rune(0x3000) {
		all.WriteRune(r)
	}
	b := &upgrade.QuorumBundle{PolicyDecision: &upgrade.PolicyDecision{Engine: all.String() + "\U0001F600\uFEFF\uFFFD"}}
	if want, err := envelope.Canonical(b); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("another form than RFC 8785's: %v", err)
	}
}
