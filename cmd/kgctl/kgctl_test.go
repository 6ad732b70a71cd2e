package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/softhsm"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
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
	t.Run("offline", func(t *testing.T) {
		oneByOne(t, "testdata", testscript.Params{Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, vars...)
			return nil
		}})
	})
	t.Run("online", func(t *testing.T) { online(t, env) })
}

// oneByOne runs the transcripts of a directory in turn: they share tokens, and
// SoftHSM2 does not show a token while another process writes to it.
func oneByOne(t *testing.T, dir string, p testscript.Params) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts in %s: %v %v", dir, files, err)
	}
	for _, file := range files {
		p.Files = []string{file}
		t.Run("in_turn", func(t *testing.T) { testscript.Run(t, p) })
	}
}

// online runs the transcripts in testdata/online, each against a gateway of
// its own. The tokens are named as the approvers are: $SUPERADMIN_KEY, $SEC_ENG_KEY,
// $TECH_LEAD_KEY, $DIVLEAD_1_KEY, $DIVLEAD_2_KEY, $OPS_KEY (a requestor) and $CI_KEY.
func online(t *testing.T, env *softhsm.Env) {
	p, vars := provision(t, env)
	entry := p.registry(t)
	vars = append(vars, env.Environ(), "TZ=UTC")
	cmds := agentCommands()
	cmds["verify"] = verify
	oneByOne(t, filepath.Join("testdata", "online"), testscript.Params{Cmds: cmds, Setup: func(e *testscript.Env) error {
		g, stop := startGateway(t, filepath.Join(e.WorkDir, ".gateway"), entry, p["kernel"], p["log"])
		e.Defer(stop)
		e.Vars = append(e.Vars, vars...)
		e.Vars = append(e.Vars, "KGCTL_SERVER="+g.url, "KGCTL_ROOT="+g.root.String(), "KGCTL_TOKEN_FILE="+filepath.Join(g.dir, "operator.token"),
			"XDG_CONFIG_HOME="+filepath.Join(e.WorkDir, ".config"), "GATEWAY="+g.dir, "PINS="+filepath.Join(env.Dir, "pins"), "LIAR="+liar(e, g), "CHANGES="+changer(e, g, p["ci"]))
		return nil
	}})
}

// verify BUNDLE ARTIFACT is what kgverify does with them, from $KGCTL_ROOT.
func verify(ts *testscript.TestScript, neg bool, args []string) {
	root, err := envelope.ParseDigest(ts.Getenv("KGCTL_ROOT"))
	ts.Check(err)
	v, err := upgrade.VerifyFile([]byte(ts.ReadFile(args[0])), root, true)
	if err == nil && v.Manifest.PatchHash != envelope.DigestOf([]byte(ts.ReadFile(args[1]))) {
		err = errors.New("the bundle is of another artifact")
	}
	if (err != nil) != neg {
		ts.Fatalf("verify %v: %v", args, err)
	}
}
