// Package e2e plays whole upgrades by the real commands in processes of their
// own, with keys in clouds and in tokens. The clouds are servers in the test's
// process that speak AWS's and Google's protocols.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms/awskmstest"
	"github.com/kernelgate/kernelgate/signer/gcpkms/gcpkmstest"
	"github.com/kernelgate/kernelgate/softhsm"
)

// TestUpgrades runs the transcripts in testdata, each with tokens, clouds and a
// gateway of its own. The variables that name keys are set by newPlace.
func TestUpgrades(t *testing.T) {
	if _, err := softhsm.Locate(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SoftHSM2: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", "")
	bin := build(t)
	files, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v %v", files, err)
	}
	work, err := os.MkdirTemp("", "kg") // short, for the guard's socket
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(work) })
	for i, file := range files { // in turn: a process has one SoftHSM2 directory at a time
		p := newPlace(t)
		t.Run("in_turn", func(t *testing.T) {
			root := filepath.Join(work, fmt.Sprint(i))
			must(t, os.Mkdir(root, 0o700))
			testscript.Run(t, testscript.Params{Files: []string{file}, WorkdirRoot: root, Cmds: p.commands(), Setup: func(e *testscript.Env) error {
				e.Vars = append(e.Vars, p.vars...)
				e.Vars = append(e.Vars, "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "XDG_CONFIG_HOME="+filepath.Join(e.WorkDir, ".config"))
				return nil
			}})
		})
	}
}

// build makes the commands, as make does.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "../../cmd/kernelgate", "../../cmd/kgctl", "../../cmd/kgverify").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is where keys lie: SoftHSM2 tokens and two clouds.
type place struct {
	aws  *awskmstest.Server
	vars []string
}

// newPlace makes a key of each kind for each of the five approvers, a requestor
// and the Kernel: $HSM_RYAN, $AWS_RYAN, $GCP_RYAN and so on are their URIs.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{aws: awskmstest.New(t)}
	gcp := gcpkmstest.New(t)
	env, err := softhsm.New(filepath.Join(t.TempDir(), "hsm"))
	must(t, err)
	p.vars = []string{env.Environ()}
	for name, value := range awskmstest.Env() {
		p.vars = append(p.vars, name+"="+value)
	}
	for name, algorithm := range map[string]signer.Algorithm{
		"RYAN": signer.ECDSAP256SHA256, "ANA": signer.ECDSAP384SHA384, "BEN": signer.Ed25519, "CLEO": signer.RSAPSSSHA256, "DAN": signer.RSAPKCS1SHA256,
		"OPS": signer.ECDSAP256SHA256, "RECORDS": signer.ECDSAP256SHA256, "AUDIT": signer.Ed25519,
	} {
		token, err := env.CreateToken(name)
		must(t, err)
		hsm, err := token.GenerateKey("key", []byte{1}, algorithm)
		must(t, err)
		aws, err := p.aws.CreateKey(algorithm)
		must(t, err)
		google, err := gcp.CreateKey(algorithm)
		must(t, err)
		p.vars = append(p.vars, "HSM_"+name+"="+hsm.URI.Text(), "AWS_"+name+"="+aws.String(), "GCP_"+name+"="+google.String())
	}
	return p
}
