package witness_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	_ "github.com/mattn/go-sqlite3"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/witness"
	"github.com/kernelgate/kernelgate/workflow"
)

// litewitness is the reference witness as a process, with its key in an SSH
// agent of the test's.
type litewitness struct{ url, vkey, db string }

func startLitewitness(t *testing.T) *litewitness {
	t.Helper()
	dir, err := os.MkdirTemp("", "kg") // an agent's socket needs a short path
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary := filepath.Join(dir, "litewitness")
	build := exec.Command("go", "build", "-C", filepath.Join("..", "..", "test", "interop"), "-o", binary, "filippo.io/torchwood/cmd/litewitness")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("litewitness does not build: %v\n%s", err, out)
		}
		t.Skipf("litewitness does not build here: %v\n%s", err, out)
	}
	socket := filepath.Join(dir, "s")
	public := startAgent(t, socket)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := free.Addr().String()
	check(t, free.Close())

	w := &litewitness{url: "http://" + address, db: filepath.Join(dir, "w.db")}
	const name = "witness.example/w1"
	fingerprint, err := ssh.NewPublicKey(public)
	check(t, err)
	var logs bytes.Buffer
	cmd := exec.Command(binary, "-name", name, "-db", w.db, "-ssh-agent", socket, "-listen", address, "-key", ssh.FingerprintSHA256(fingerprint))
	cmd.Stderr = &logs
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(logs.String())
		}
	})
	key := auditlog.Witness{Name: name, Key: public}
	w.vkey = vkeyOfWitness(key)
	if _, err := torchwood.NewCosignatureVerifier(w.vkey); err != nil {
		t.Fatalf("the reference reads our form of its key otherwise: %v", err)
	}
	for range 200 {
		if answer, err := http.Get(w.url); err == nil {
			check(t, answer.Body.Close())
			return w
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("litewitness does not answer")
	return nil
}

func startAgent(t *testing.T, socket string) ed25519.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	keys := agent.NewKeyring()
	check(t, keys.Add(agent.AddedKey{PrivateKey: private}))
	listener, err := net.Listen("unix", socket)
	check(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }() // ends with the witness
		}
	}()
	return public
}

// addLog is what a witness's operator does with a log's key.
func (w *litewitness) addLog(t *testing.T, vkey string) {
	t.Helper()
	db, err := sql.Open("sqlite3", w.db+"?_busy_timeout=5000")
	check(t, err)
	defer db.Close()
	origin, _, _ := strings.Cut(vkey, "+")
	const empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	_, err = db.Exec("INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", origin, empty)
	check(t, err)
	_, err = db.Exec("INSERT INTO key (origin, key) VALUES (?, ?)", origin, vkey)
	check(t, err)
}

func TestLitewitness(t *testing.T) {
	w := startLitewitness(t)
	audit := registrytest.Key(signer.Ed25519)
	log := newLog(t, audit)
	policy := policyOf(t, fmt.Sprintf("witness w1 %s %s\nquorum w1\n", w.vkey, w.url))
	witnesses, err := witness.New(policy, log, nil)
	check(t, err)
	check(t, witnesses.Cosign(t.Context())) // an empty log has nothing to cosign

	log.grow(t, 3)
	if err := witnesses.Cosign(t.Context()); err == nil || failure.ClassOf(err) != "" || !strings.Contains(err.Error(), "does not know this log") {
		t.Fatalf("a log that the witness does not know: %v", err)
	}
	if _, err := policy.Check(log.checkpoint(t)); err == nil {
		t.Fatal("a checkpoint that nobody cosigned passes")
	}
	w.addLog(t, vkey(audit))
	for _, events := range []int{0, 1, 300, 0, 5} {
		if events > 0 {
			log.grow(t, events)
		}
		check(t, witnesses.Cosign(t.Context()))
		found, err := policy.Check(log.checkpoint(t))
		if err != nil || len(found) != 1 || time.Since(found[0].Time.Std()) > time.Minute {
			t.Fatalf("after %d more events: %v, %v", events, found, err)
		}
	}
	// A gateway that restarted does not know what the witness has seen; it is told.
	log.grow(t, 2)
	again, err := witness.New(policy, log, nil)
	check(t, err)
	check(t, again.Cosign(t.Context()))
	// Another gateway of the same log went on; this one still thinks of 311.
	log.grow(t, 4)
	check(t, again.Cosign(t.Context()))
	log.grow(t, 1)
	check(t, witnesses.Cosign(t.Context()))

	var cosigned int64
	check(t, log.View(t.Context(), func(r workflow.Reader) (err error) {
		_, cosigned, err = r.(interface {
			CosignedCheckpoint() (string, int64, error)
		}).CosignedCheckpoint()
		return err
	}))
	if cosigned != 316 {
		t.Errorf("the last cosigned checkpoint is of %d events", cosigned)
	}
	testForks(t, policy, audit)
}

// Who lost the log and began again, shorter or longer, is found out by the witness.
func testForks(t *testing.T, policy *auditlog.WitnessPolicy, audit signer.Signer) {
	for name, events := range map[string]int{"restored from a backup": 200, "another of the same size": 316, "rewritten": 400} {
		fork := newLog(t, audit)
		fork.grow(t, events)
		witnesses, err := witness.New(policy, fork, nil)
		check(t, err)
		for range 2 { // it does not wear off
			if err := witnesses.Cosign(context.Background()); failure.ClassOf(err) != failure.AuditFork {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := policy.Check(fork.checkpoint(t)); err == nil {
			t.Errorf("%s: cosigned", name)
		}
	}
}
