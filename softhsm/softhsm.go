// Package softhsm makes throw-away SoftHSM2 tokens for tests, the demo and
// development, and provisions keys in them. It is no place for keys that
// matter: the token's files and the PIN lie in one directory.
//
// Provisioning goes through crypto11, and through signer/pkcs11 for Ed25519,
// which crypto11 lacks. crypto11 wants to initialise the module itself, so keys
// are made before the process opens signers in it.
package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// confVariable names the module's configuration file. The module reads it in
// C_Initialize from the process's environment.
const confVariable = "SOFTHSM2_CONF"

// Env is one directory of tokens: softhsm2.conf, tokens/ and pins/.
type Env struct {
	Dir    string // absolute
	Conf   string // path of softhsm2.conf
	Module string // path of libsofthsm2.so
}

// New makes the directory dir (mode 0700) and what belongs in it, or takes
// what is there already. It points this process's SOFTHSM2_CONF at it, so a
// process works with one Env at a time; child processes need Environ.
func New(dir string) (*Env, error) {
	module, err := Locate()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	if strings.ContainsAny(dir, "\n\r") {
		return nil, errors.New("softhsm: the directory's name cannot stand in softhsm2.conf")
	}
	e := &Env{Dir: dir, Conf: filepath.Join(dir, "softhsm2.conf"), Module: module}
	for _, d := range []string{dir, e.TokenDir(), filepath.Join(dir, "pins")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("softhsm: %w", err)
		}
	}
	conf := "directories.tokendir = " + e.TokenDir() + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := os.WriteFile(e.Conf, []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	if err := os.Setenv(confVariable, e.Conf); err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	return e, nil
}

// TokenDir is where the tokens' files are.
func (e *Env) TokenDir() string { return filepath.Join(e.Dir, "tokens") }

// Environ is the one variable, as NAME=VALUE, that a child process needs.
func (e *Env) Environ() string { return confVariable + "=" + e.Conf }

// candidates are where the common systems install the module.
var candidates = []string{
	"/usr/lib/softhsm/libsofthsm2.so",                      // Debian, Ubuntu, Alpine
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",     // Debian, multiarch
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",    // the same on ARM
	"/usr/lib64/pkcs11/libsofthsm2.so",                     // Fedora, RHEL
	"/usr/lib64/softhsm/libsofthsm2.so",                    // openSUSE
	"/usr/lib/pkcs11/libsofthsm2.so",                       // Arch
	"/usr/local/lib/softhsm/libsofthsm2.so",                // from source
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",             // macOS, Homebrew on ARM
	"/opt/homebrew/opt/softhsm/lib/softhsm/libsofthsm2.so", // the same, unlinked
	"/usr/local/opt/softhsm/lib/softhsm/libsofthsm2.so",    // macOS, Homebrew on Intel
}

// moduleVariable overrides the search for the module.
const moduleVariable = "SOFTHSM2_MODULE"

// Locate finds libsofthsm2.so: where SOFTHSM2_MODULE says, else in the places
// that common systems have.
func Locate() (string, error) {
	if path := os.Getenv(moduleVariable); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("softhsm: %s: %w", moduleVariable, err)
		}
		return path, nil
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("softhsm: SoftHSM2 is not installed: apt-get install softhsm2 (Debian, Ubuntu), dnf install softhsm (Fedora), " +
		"apk add softhsm (Alpine), brew install softhsm (macOS); or set " + moduleVariable + " to libsofthsm2.so")
}
