package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/softhsm"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kgctl": main})
}

// TestTranscripts runs the transcripts in testdata. Each has real SoftHSM2
// tokens of its own: $RYAN, $ANA, $BEN, $CLEO and $DAN are the URIs of keys of
// five approvers, $RECORDS and $AUDIT those of the Kernel, $MODULE the library
// and $RYAN_PIN the file with the PIN of token "ryan".
func TestTranscripts(t *testing.T) {
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	env, err := softhsm.New(filepath.Join(t.TempDir(), "hsm"))
	if err != nil {
		t.Fatal(err)
	}
	vars := []string{env.Environ(), "ZERO=" + envelope.Digest{}.String(), "MODULE=" + env.Module}
	for _, k := range []struct {
		token, name string
		algorithm   signer.Algorithm
	}{
		{"ryan", "RYAN", signer.ECDSAP256SHA256}, {"ana", "ANA", signer.ECDSAP384SHA384}, {"ben", "BEN", signer.Ed25519},
		{"cleo", "CLEO", signer.RSAPSSSHA256}, {"dan", "DAN", signer.RSAPKCS1SHA256},
		{"records", "RECORDS", signer.ECDSAP256SHA256}, {"audit", "AUDIT", signer.Ed25519},
	} {
		token, err := env.CreateToken(k.token)
		if err != nil {
			t.Fatal(err)
		}
		key, err := token.GenerateKey("key", []byte{1}, k.algorithm)
		if err != nil {
			t.Fatal(err)
		}
		vars = append(vars, fmt.Sprintf("%s=%s", k.name, key.URI.Text()), fmt.Sprintf("%s_PIN=%s", k.name, token.PINFile))
	}
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		e.Vars = append(e.Vars, vars...)
		return nil
	}})
}
