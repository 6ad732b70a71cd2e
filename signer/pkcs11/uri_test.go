package pkcs11

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
)

const inModule = "?module-path=/usr/lib/m.so"

func TestParseURI(t *testing.T) {
	slot := uint(7)
	cases := map[string]URI{
		"pkcs11:" + inModule: {ModulePath: "/usr/lib/m.so"},
		"pkcs11:token=My%20Token;serial=0a;manufacturer=M;model=X;slot-id=7;object=k;id=%01%FF;type=private" + inModule: {Token: "My Token",
			Serial: "0a", Manufacturer: "M", Model: "X", SlotID: &slot, Object: "k", ID: []byte{1, 255}, ModulePath: "/usr/lib/m.so"},
		"pkcs11:id=abc" + inModule: {ID: []byte("abc"), ModulePath: "/usr/lib/m.so"},
		"pkcs11:token=a+b" + inModule + "&pin-source=file:///run/pin&algorithm=rsa-pkcs1-sha256&max-sessions=3": {Token: "a+b",
			ModulePath: "/usr/lib/m.so", PINSource: FilePIN("/run/pin"), Algorithm: signer.RSAPKCS1SHA256, MaxSessions: 3},
		"pkcs11:token=%C3%BC" + inModule + "&pin-source=env:HSM_PIN":       {Token: "ü", ModulePath: "/usr/lib/m.so", PINSource: PINSource{"env", "HSM_PIN"}},
		"pkcs11:token=t" + inModule + "&pin-source=credential:hsm-pin.txt": {Token: "t", ModulePath: "/usr/lib/m.so", PINSource: PINSource{"credential", "hsm-pin.txt"}},
	}
	for text, want := range cases {
		got, err := ParseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v", text, got)
		}
		if again, err := ParseURI(got.Text()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: Text %s does not give it back: %v", text, got.Text(), err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                                                     "pkcs11:",
		"PKCS11:token=a" + inModule:                            "pkcs11:",
		"pkcs11:token=a":                                       "module-path",
		"pkcs11:token=" + inModule:                             "with a value",
		"pkcs11:token" + inModule:                              "name=value",
		"pkcs11:;" + inModule:                                  "name=value",
		"pkcs11:token=a;token=b" + inModule:                    "twice",
		"pkcs11:library-version=3" + inModule:                  "unknown attribute",
		"pkcs11:x-vendor=1" + inModule:                         "unknown attribute",
		"pkcs11:token=a b" + inModule:                          "%20",
		"pkcs11:token=%4" + inModule:                           "hex",
		"pkcs11:token=%zz" + inModule:                          "hex",
		"pkcs11:token=%FF" + inModule:                          "UTF-8",
		"pkcs11:token=%00" + inModule:                          "UTF-8",
		"pkcs11:type=public" + inModule:                        "type=private",
		"pkcs11:slot-id=-1" + inModule:                         "slot-id",
		"pkcs11:slot-id=4294967296" + inModule:                 "slot-id",
		"pkcs11:?module-path=m.so":                             "absolute",
		"pkcs11:?module-name=softhsm2":                         "module-path",
		"pkcs11:" + inModule + "&pin-source=/run/pin":          "pin-source is",
		"pkcs11:" + inModule + "&pin-source=%7Cprogram":        "pin-source is",
		"pkcs11:" + inModule + "&pin-source=file:pin":          "absolute",
		"pkcs11:" + inModule + "&pin-source=file://host/pin":   "absolute",
		"pkcs11:" + inModule + "&pin-source=env:A-B":           "environment",
		"pkcs11:" + inModule + "&pin-source=credential:..%2Fx": "credential",
		"pkcs11:" + inModule + "&algorithm=md5":                "algorithm is",
		"pkcs11:" + inModule + "&max-sessions=0":               "max-sessions",
		"pkcs11:" + inModule + "&max-sessions=9999":            "max-sessions",
		"pkcs11:" + inModule + "&x=1":                          "unknown query",
		"pkcs11:token=" + strings.Repeat("a", maxURI):          "longer",
	} {
		_, err := ParseURI(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: got %v, want an error that says %q", text, err, says)
		}
	}
}

func TestPINValueIsRefusedAndNotRepeated(t *testing.T) {
	for _, text := range []string{
		"pkcs11:" + inModule + "&pin-value=271828", "pkcs11:pin-value=271828" + inModule, "pkcs11:271828=x" + inModule,
		"pkcs11:" + inModule + "&pin-source=271828", "pkcs11:" + inModule + "&271828",
	} {
		_, err := ParseURI(text)
		if err == nil || strings.Contains(err.Error(), "271828") {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if _, err := ParseURI("pkcs11:" + inModule + "&pin-value=1"); !strings.Contains(err.Error(), "pin-source") {
		t.Errorf("the error does not say what to use instead: %v", err)
	}
}

func TestURIIsRedactedHoweverPrinted(t *testing.T) {
	u, err := ParseURI("pkcs11:token=t" + inModule + "&pin-source=file:/run/secret-place")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "uri", u)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "uri", u)
	marshalled, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{u.String(), fmt.Sprint(u), fmt.Sprintf("%v %+v %#v %s", u, u, u, u), log.String(), string(marshalled)} {
		if strings.Contains(text, "secret-place") {
			t.Errorf("printed: %s", text)
		}
	}
	if !strings.Contains(u.Text(), "secret-place") {
		t.Error("Text leaves the pin-source out")
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=a%20b;serial=1;object=k;id=%01;type=private?module-path=/m.so&pin-source=file:/p")
	f.Add("pkcs11:slot-id=3?module-path=/m.so&algorithm=ed25519&max-sessions=4&pin-source=env:PIN")
	f.Add("pkcs11:id=%00%FF?module-path=/m.so&pin-source=credential:x")
	f.Add("pkcs11:?module-path=/%3F%26%3B")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			return
		}
		again, err := ParseURI(u.Text())
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Fatalf("%q: %q gives %v, %v", text, u.Text(), again, err)
		}
		if _, err := ParseURI(u.String()); err == nil != u.PINSource.IsZero() {
			t.Fatalf("%q: a redacted URI parses: %s", text, u)
		}
	})
}
