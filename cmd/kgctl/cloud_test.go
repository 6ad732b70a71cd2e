package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/awskms/awskmstest"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/gcpkms/gcpkmstest"
)

// TestCloudTranscripts runs the transcripts in testdata/cloud against servers
// that speak the clouds' protocols: $AWS_P256, $AWS_ED25519, $GCP_P384 and so on are URIs of
// keys there. "cloud disable URI" and "cloud enable URI" change a key's state.
func TestCloudTranscripts(t *testing.T) {
	aws, gcp := awskmstest.New(t), gcpkmstest.New(t)
	var vars []string
	for name, value := range awskmstest.Env() {
		vars = append(vars, name+"="+value)
	}
	for name, algorithm := range map[string]signer.Algorithm{"P256": signer.ECDSAP256SHA256, "P384": signer.ECDSAP384SHA384, "ED25519": signer.Ed25519, "RSA": signer.RSAPSSSHA256} {
		a, err := aws.CreateKey(algorithm)
		must(t, err)
		g, err := gcp.CreateKey(algorithm)
		must(t, err)
		vars = append(vars, fmt.Sprintf("AWS_%s=%s", name, a), fmt.Sprintf("GCP_%s=%s", name, g))
	}
	cloud := func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 || args[0] != "disable" && args[0] != "enable" {
			ts.Fatalf("usage: cloud disable|enable URI")
		}
		if strings.HasPrefix(args[1], awskms.Scheme) {
			u, err := awskms.ParseURI(args[1])
			ts.Check(err)
			aws.SetState(u, map[string]awskmstest.State{"disable": awskmstest.Disabled, "enable": awskmstest.Enabled}[args[0]])
			return
		}
		u, err := gcpkms.ParseURI(args[1])
		ts.Check(err)
		gcp.SetState(u, map[string]kmspb.CryptoKeyVersion_CryptoKeyVersionState{
			"disable": kmspb.CryptoKeyVersion_DISABLED, "enable": kmspb.CryptoKeyVersion_ENABLED}[args[0]])
	}
	oneByOne(t, filepath.Join("testdata", "cloud"), testscript.Params{
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"cloud": cloud},
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, vars...)
			return nil
		},
	})
}
