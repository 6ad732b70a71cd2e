package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const someRoot = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

// load writes a configuration and loads it.
func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "k.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return loadConfig(file)
}

// example is the file of docs/configuration.md.
func example(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/configuration.md")
	must(t, err)
	_, rest, found := strings.Cut(string(data), "```yaml\n")
	text, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/configuration.md has no example")
	}
	return text
}

func TestDocumentedExample(t *testing.T) {
	c, err := load(t, example(t))
	must(t, err)
	if c.Root.String() != someRoot || c.Guard.CallTimeout != 20*time.Second || c.Targets["web"].Release.Keep != 3 ||
		c.Targets["firmware"].Exec.Command[0] != "/usr/local/bin/flash" || c.Policy.Digest.String() == someRoot || len(c.Guard.Command) != 9 {
		t.Errorf("decoded as %+v", c)
	}
	dir := filepath.Dir(c.file)
	if c.Database.URL != filepath.Join(dir, "data", "kernelgate.db") || c.TLS.Cert != filepath.Join(dir, "tls", "gateway.pem") {
		t.Errorf("relative paths are not below the file: %s, %s", c.Database.URL, c.TLS.Cert)
	}
	must(t, c.requireServe())
}

// The example shows every key, and the defaults are what it says.
func TestDocumentedKeys(t *testing.T) {
	text := example(t)
	var visit func(prefix string, typ reflect.Type)
	visit = func(prefix string, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for field := range typ.Fields() {
			name := field.Tag.Get("yaml")
			if name == "" {
				continue
			}
			if !strings.Contains(text, "\n"+strings.Repeat("  ", strings.Count(prefix, "."))+name+":") && !strings.Contains(text, "  "+name+":") {
				t.Errorf("docs/configuration.md does not show %s%s", prefix, name)
			}
			visit(prefix+name+".", field.Type)
		}
	}
	visit("", reflect.TypeFor[Config]())
	c, err := load(t, "")
	must(t, err)
	shown, err := load(t, example(t))
	must(t, err)
	if c.Limits != shown.Limits || c.Log != shown.Log || c.Guard.CallTimeout != shown.Guard.CallTimeout || c.Listen != shown.Listen ||
		c.Artifacts.MaxBytes != shown.Artifacts.MaxBytes || c.Policy.Timeout != shown.Policy.Timeout {
		t.Errorf("the defaults are %+v", c)
	}
}

func TestConfigRefuses(t *testing.T) {
	long := "/" + strings.Repeat("a", maxSocketPath)
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":           {"dataDir: x\nroots: y\n", `line 2: unknown key "roots"`},
		"unknown key in a part": {"guard:\n  sockets: y\n", `line 2: unknown key "sockets"`},
		"unknown key in target": {"targets:\n  web:\n    release:\n      directory: y\n", `line 4: unknown key "directory"`},
		"other letter case":     {"datadir: x\n", `line 1: unknown key "datadir"`},
		"doubled key":           {"listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", "line 2"},
		"wrong type":            {"artifacts:\n  maxBytes: many\n", "line 2"},
		"not a digest":          {"root: sha256:12\n", "sha256"},
		"two documents":         {"dataDir: x\n---\ndataDir: y\n", "more than one"},
		"plain HTTP outside":    {"listen: 0.0.0.0:80\n", "plain HTTP"},
		"plain HTTP everywhere": {"listen: ':80'\n", "plain HTTP"},
		"plain HTTP by name":    {"listen: gateway.example:80\n", "plain HTTP"},
		"no address":            {"listen: here\n", "listen"},
		"half of TLS":           {"tls:\n  cert: x\n", "both cert and key"},
		"another database":      {"database:\n  url: mysql://db/x\n", "mysql"},
		"password in a URL":     {"database:\n  url: postgres://u:p@db/x\n", "passwordFile"},
		"bucket":                {"artifacts:\n  url: gs://bucket\n", "gs is not a store"},
		"bucket without TLS":    {"artifacts:\n  url: s3://bucket?endpoint=http://s3.example\n", "without TLS"},
		"bus without TLS":       {"bus:\n  url: nats://nats.example:4222\n", "tls://nats.example:4222"},
		"bus's login alone":     {"bus:\n  credentials: x\n", "url"},
		"no room":               {"artifacts:\n  maxBytes: 0\n", "positive"},
		"guard address":         {"guard:\n  address: guard.sock\n", "neither unix:/path nor tls://host:port"},
		"guard address by http": {"guard:\n  address: https://x:1\n", "neither unix:/path nor tls://host:port"},
		"guard without TLS":     {"guard:\n  address: tls://x:1\n", "set cert, key and ca"},
		"guard's half of TLS":   {"guard:\n  address: tls://x:1\n  tls: {cert: a, key: b}\n", "set cert, key and ca"},
		"guard's TLS unused":    {"guard:\n  tls: {cert: a, key: b, ca: c}\n", "only then"},
		"address and command":   {"guard:\n  address: unix:/x\n  command: [/bin/x]\n", "leave command out"},
		"relative command":      {"guard:\n  command: [x]\n", "absolute"},
		"long socket":           {"guard:\n  socket: " + long + "\n", "shorter"},
		"short call timeout":    {"guard:\n  callTimeout: 1ms\n", "callTimeout"},
		"key's scheme":          {"guard:\n  auditKey: ftp:x\n", "auditKey"},
		"key without a module":  {"guard:\n  recordsKey: pkcs11:token=x\n", "module-path"},
		"two policies":          {"policy:\n  dir: x\n  url: http://x\n", "not both"},
		"policy's digest":       {"policy:\n  digest: " + someRoot + "\n", "belong to url"},
		"target's name":         {"targets:\n  'Web!':\n    release: {dir: x}\n", "Web!"},
		"empty target":          {"targets:\n  web: {}\n", "exactly one"},
		"target of two kinds":   {"targets:\n  web:\n    release: {dir: x}\n    exec: {command: [/x]}\n", "exactly one"},
		"release without dir":   {"targets:\n  web:\n    release: {keep: 1}\n", "dir"},
		"canary of nothing":     {"canary:\n  web: {window: 1m, exec: [{name: x, argv: [/bin/true]}]}\n", "none of the targets"},
		"canary without check":  {"targets:\n  web: {release: {dir: x}}\ncanary:\n  web: {window: 1m}\n", "0 checks"},
		"log format":            {"log:\n  format: xml\n", "xml"},
		"log level":             {"log:\n  level: loud\n", "loud"},
		"heartbeat":             {"limits: {heartbeat: 1m}\n", "15m to 24h"},
		"hard limit below soft": {"limits: {unsealedEvents: 5, maxUnsealedEvents: 4}\n", "maxUnsealedEvents"},
		"no drain":              {"limits:\n  drain: 0s\n", "drain"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestConfigAllows(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "empty part": "guard:\n", "IPv6": "listen: '[::1]:0'\n", "localhost": "listen: localhost:0\n",
		"outside with TLS": "listen: 0.0.0.0:443\ntls: {cert: a, key: b}\n",
	} {
		if _, err := load(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("KERNELGATE_LISTEN", "127.0.0.1:9")
	t.Setenv("KERNELGATE_ROOT", someRoot)
	t.Setenv("KERNELGATE_GUARD_CALLTIMEOUT", "7s")
	t.Setenv("KERNELGATE_ARTIFACTS_MAXBYTES", "5")
	t.Setenv("KERNELGATE_POLICY_PLAINTEXT", "true")
	t.Setenv("KERNELGATE_POLICY_URL", "http://x")
	c, err := load(t, "listen: 127.0.0.1:8\nguard: {callTimeout: 3s, memory: m}\n")
	must(t, err)
	if c.Listen != "127.0.0.1:9" || c.Root.String() != someRoot || c.Guard.CallTimeout != 7*time.Second || c.Artifacts.MaxBytes != 5 || !c.Policy.Plaintext {
		t.Errorf("decoded as %+v", c)
	}
	if filepath.Base(c.Guard.Memory) != "m" {
		t.Errorf("a sibling of an override is lost: %+v", c.Guard)
	}
	t.Setenv("KERNELGATE_LISTEN", "0.0.0.0:80")
	if _, err := load(t, ""); err == nil {
		t.Error("an override is not checked")
	}
	t.Setenv("KERNELGATE_LISTEN", "127.0.0.1:9")
	t.Setenv("KERNELGATE_LISTENS", "x")
	if _, err := load(t, ""); err == nil || !strings.Contains(err.Error(), "KERNELGATE_LISTENS") {
		t.Errorf("an override of nothing: %v", err)
	}
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k.yaml")
	must(t, os.WriteFile(file, []byte("root: "+someRoot+"\nguard: {recordsKey: 'file:/a', auditKey: 'file:/b'}\n"), 0o600))
	if code, out, stderr := call(t.Context(), "config", "check", "--config", file); code != 0 || !strings.Contains(out, "is good") {
		t.Errorf("%d %s%s", code, out, stderr)
	}
	must(t, os.WriteFile(file, []byte("root: "+someRoot+"\n"), 0o600))
	if code, _, stderr := call(t.Context(), "config", "check", "--config", file); code != exitFailure || !strings.Contains(stderr, "guard.recordsKey") {
		t.Errorf("%d %s", code, stderr)
	}
}
