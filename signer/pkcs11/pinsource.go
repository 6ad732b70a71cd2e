package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// maxPIN bounds a PIN, in bytes.
const maxPIN = 256

var (
	envName        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	credentialName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// PINSource says where a PIN is kept: file:/path, env:NAME, or
// credential:NAME (a systemd credential, in $CREDENTIALS_DIRECTORY). The zero
// value is no source. The PIN is read at each login and never kept.
type PINSource struct{ kind, name string }

func parsePINSource(text string) (PINSource, error) {
	kind, name, _ := strings.Cut(text, ":")
	switch kind {
	case "file":
		if strings.HasPrefix(name, "///") {
			name = name[2:]
		}
		if !strings.HasPrefix(name, "/") || strings.HasPrefix(name, "//") {
			return PINSource{}, errors.New("pin-source=file: takes an absolute path")
		}
	case "env":
		if !envName.MatchString(name) {
			return PINSource{}, errors.New("pin-source=env: takes the name of an environment variable")
		}
	case "credential":
		if !credentialName.MatchString(name) {
			return PINSource{}, errors.New("pin-source=credential: takes the name of a systemd credential")
		}
	default:
		return PINSource{}, errors.New("pin-source is file:/path, env:NAME or credential:NAME; commands and PINs are not accepted")
	}
	return PINSource{kind, name}, nil
}

// FilePIN is the source file:path. The path must be absolute.
func FilePIN(path string) PINSource { return PINSource{"file", path} }

// IsZero reports whether there is no source.
func (p PINSource) IsZero() bool { return p.kind == "" }

// String is the source as it stands in a URI, or "".
func (p PINSource) String() string {
	if p.IsZero() {
		return ""
	}
	return p.kind + ":" + p.name
}

// read returns the PIN; the caller wipes it. A PIN that comes from the
// environment leaves a copy there that cannot be wiped.
func (p PINSource) read() ([]byte, error) {
	switch p.kind {
	case "env":
		pin := os.Getenv(p.name)
		if pin == "" {
			return nil, fmt.Errorf("environment variable %s, which should hold the PIN, is empty", p.name)
		}
		return []byte(pin), nil
	case "credential":
		directory := os.Getenv("CREDENTIALS_DIRECTORY")
		if directory == "" {
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start the program by systemd with LoadCredential=" + p.name + ":/path")
		}
		return readPINFile(filepath.Join(directory, p.name))
	}
	return readPINFile(p.name)
}

// readPINFile reads the one line of a file that others cannot read.
func readPINFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not hang.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("PIN file: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("PIN file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("PIN file %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o027 != 0 {
		return nil, fmt.Errorf("PIN file %s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	pin, err := io.ReadAll(io.LimitReader(file, maxPIN+2))
	if err != nil {
		clear(pin)
		return nil, fmt.Errorf("PIN file: %w", err)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(pin, []byte("\n")), []byte("\r"))
	if len(line) == 0 || len(line) > maxPIN || bytes.ContainsAny(line, "\n\x00") {
		clear(pin)
		return nil, fmt.Errorf("PIN file %s does not hold one line of 1 to %d bytes", path, maxPIN)
	}
	return line, nil
}

// Read is the PIN, for who provisions keys; the caller wipes it.
func (p PINSource) Read() ([]byte, error) { return p.read() }
