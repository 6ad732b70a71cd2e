package pkcs11_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
	"github.com/kernelgate/kernelgate/signer/signertest"
	"github.com/kernelgate/kernelgate/softhsm"
)

// needModule finds a module of the system, or skips, which CI does not allow.
func needModule(t testing.TB, name, debian string) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11/", "/usr/lib/pkcs11/", "/usr/lib64/pkcs11/", "/usr/local/lib/pkcs11/", "/opt/homebrew/lib/pkcs11/"} {
		if found, err := filepath.Glob(pattern + name); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	lack(t, fmt.Sprintf("%s is not installed (Debian: %s)", name, debian))
	return ""
}

func needProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		lack(t, err.Error())
	}
}

func lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// background runs a program until the test's end.
func background(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = endWithParent()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was told to end
	})
	return cmd
}

// answers reports whether somebody takes connections there.
func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20s", what)
		}
	}
}

// TestConformanceTPM: the suite on a TPM 2.0, by tpm2-pkcs11 over swtpm. It
// offers neither Ed25519 nor PSS. Each algorithm has a TPM of its own, since one
// without a resource manager holds no more than three objects.
func TestConformanceTPM(t *testing.T) {
	for _, a := range []signer.Algorithm{signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.RSAPKCS1SHA256} {
		t.Run("TPM", func(t *testing.T) {
			module, port := newTPM(t)
			u := pkcs11.URI{Token: "tpm", Object: string(a), Algorithm: a, ModulePath: module, PINSource: pkcs11.FilePIN(initTPM(t, module, a))}
			cases := map[*testing.T]bool{}
			signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
				if !cases[t] {
					cases[t] = true
					t.Cleanup(func() { flushTPM(t, port) }) // once the case's signers are closed
				}
				s, err := pkcs11.Open(within(t, 20*time.Second), u, pkcs11.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}, a)
		})
	}
}

// flushTPM frees what a module may have left in the TPM, as the resource
// manager of a real one does when a program ends.
func flushTPM(t *testing.T, port int) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} { // objects, HMAC and policy sessions
		for i := range uint32(3) {
			// TPM2_FlushContext: tag, size, command, handle.
			command := binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65}, first+i)
			if _, err := conn.Write(command); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil { // it says whether there was one
				t.Fatal(err)
			}
		}
	}
}

// newTPM runs a software TPM and points tpm2-pkcs11 at it.
func newTPM(t *testing.T) (module string, port int) {
	t.Helper()
	module = needModule(t, "libtpm2_pkcs11.so", "libtpm2-pkcs11-1 and libtss2-tcti-swtpm0")
	needProgram(t, "swtpm")
	dir := t.TempDir()
	port = freePorts(t)
	background(t, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear",
		"--server", fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", port),
		"--ctrl", fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", port+1))
	eventually(t, "swtpm listens", func() bool { return answers("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)) })
	t.Setenv("TPM2_PKCS11_STORE", t.TempDir())
	t.Setenv("TPM2_PKCS11_TCTI", fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", port))
	return module, port
}

// freePorts finds a port that is free, as is the next one.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 50 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		first.Close()
		if err == nil {
			second.Close()
			return port
		}
	}
	t.Fatal("no two neighbouring ports are free")
	return 0
}

// initTPM makes the token "tpm" and a key in it, all by PKCS#11.
func initTPM(t *testing.T, module string, a signer.Algorithm) (pinFile string) {
	t.Helper()
	inSession(t, module, func(c *p11.Ctx, slot uint, _ p11.SessionHandle) error { return c.InitToken(slot, "87654321", "tpm") })
	inSession(t, module, func(c *p11.Ctx, _ uint, session p11.SessionHandle) error {
		return errors.Join(c.Login(session, p11.CKU_SO, "87654321"), c.InitPIN(session, "271828"), c.Logout(session),
			c.Login(session, p11.CKU_USER, "271828"), generatePair(c, session, a))
	})
	pinFile = filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pinFile, []byte("271828\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return pinFile
}

// inSession initialises the module for the length of do.
func inSession(t *testing.T, module string, do func(*p11.Ctx, uint, p11.SessionHandle) error) {
	t.Helper()
	c := p11.New(module)
	if c == nil {
		t.Fatalf("%s does not load", module)
	}
	if err := c.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer c.Finalize()
	slots, err := c.GetSlotList(true)
	if err != nil || len(slots) == 0 {
		t.Fatalf("no slots: %v", err)
	}
	session, err := c.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err == nil {
		defer c.CloseSession(session)
	}
	if err := do(c, slots[0], session); err != nil {
		t.Fatal(err)
	}
}

func generatePair(c *p11.Ctx, session p11.SessionHandle, a signer.Algorithm) error {
	generate, parameters := uint(p11.CKM_EC_KEY_PAIR_GEN), []*p11.Attribute{
		p11.NewAttribute(p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})}
	switch a {
	case signer.ECDSAP384SHA384:
		parameters[0] = p11.NewAttribute(p11.CKA_EC_PARAMS, []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22})
	case signer.RSAPKCS1SHA256:
		generate, parameters = p11.CKM_RSA_PKCS_KEY_PAIR_GEN, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_MODULUS_BITS, 2048), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	}
	common := []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, string(a)), p11.NewAttribute(p11.CKA_ID, []byte{1})}
	public := append(append([]*p11.Attribute{p11.NewAttribute(p11.CKA_VERIFY, true)}, common...), parameters...)
	private := append([]*p11.Attribute{p11.NewAttribute(p11.CKA_SIGN, true), p11.NewAttribute(p11.CKA_SENSITIVE, true)}, common...)
	_, _, err := c.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(generate, nil)}, public, private)
	return err
}

// remote is SoftHSM2 behind a p11-kit server: another process has the module.
type remote struct {
	server *exec.Cmd
	module string // p11-kit-client.so
}

func newRemote(t *testing.T, env *softhsm.Env) *remote {
	t.Helper()
	r := &remote{module: needModule(t, "p11-kit-client.so", "p11-kit-modules")}
	needProgram(t, "p11-kit")
	// A socket's path is short; and the client reads the address once in a
	// process's life, so all tests have the same.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("kernelgate-p11-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	r.server = background(t, "p11-kit", "server", "--foreground", "--provider", env.Module, "--name", socket, "pkcs11:")
	eventually(t, "p11-kit server listens", func() bool { return answers("unix", socket) })
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+socket)
	return r
}

// children are the server's processes, one a client.
func (r *remote) children(t *testing.T) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.server.Process.Pid, r.server.Process.Pid))
	if err != nil {
		lack(t, fmt.Sprintf("the children of a process are not told here: %v", err))
	}
	for field := range strings.FieldsSeq(string(text)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// TestConformanceRemote: the suite through p11-kit's remoting.
func TestConformanceRemote(t *testing.T) {
	env := newEnv(t)
	token := newToken(t, env, "remote")
	keys := map[signer.Algorithm]pkcs11.URI{}
	algorithms := []signer.Algorithm{signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256}
	for i, a := range algorithms {
		keys[a] = newKey(t, token, "key-"+string(a), byte(i+1), a).URI
	}
	r := newRemote(t, env)
	signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
		u := keys[a]
		u.ModulePath = r.module
		s, err := pkcs11.Open(within(t, 10*time.Second), u, pkcs11.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, algorithms...)
}

// TestRemoteChildIsKilled: the process that has the module dies. All that the
// client's side says then is CKR_DEVICE_ERROR.
func TestRemoteChildIsKilled(t *testing.T) {
	env := newEnv(t)
	key := newKey(t, newToken(t, env, "remote"), "k", 1, signer.ECDSAP256SHA256)
	r := newRemote(t, env)
	key.URI.ModulePath = r.module
	s := openKey(t, key.URI, pkcs11.Options{})
	var times []time.Duration
	for range 5 {
		mustSign(t, s)
		pids := r.children(t)
		if len(pids) == 0 {
			t.Fatal("the server has no child: the test tests nothing")
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		times = append(times, backAfter(t, s))
	}
	t.Logf("| the process behind p11-kit is killed | signs again after %v |", times)
	signertest.CheckRecovery(t, "the process behind p11-kit is killed", recoveryLimit, times)
}
