package api

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Role is what a token may call. It gives no authority over upgrades.
type Role string

// The roles.
const (
	RoleApprover  Role = "approver"
	RoleRequestor Role = "requestor"
	RoleCI        Role = "ci"
	RoleOperator  Role = "operator"
	RoleAuditor   Role = "auditor"
)

var roles = []Role{RoleApprover, RoleRequestor, RoleCI, RoleOperator, RoleAuditor}

// Roles are all of them.
func Roles() []Role { return slices.Clone(roles) }

// tokenPrefix lets scanners for leaked secrets find a token.
const tokenPrefix = "kgt_"

// maxTokenFile bounds what is read; it holds some thousands of tokens.
const maxTokenFile = 1 << 20

// Token is a token's entry: whose it is, and the SHA-256 of its text.
type Token struct {
	ID     envelope.ID     `json:"id"`
	Role   Role            `json:"role"`
	SHA256 envelope.Digest `json:"sha256"`
}

// TokenFile is a file of tokens, mode 0600, read again when it is replaced.
// It keeps hashes only. A token has 256 random bits, so a plain hash is
// enough: there is nothing to guess.
type TokenFile struct {
	path string

	mu     sync.Mutex
	seen   fs.FileInfo
	tokens map[envelope.Digest]Token
}

// OpenTokens opens a file, which must exist.
func OpenTokens(path string) (*TokenFile, error) {
	f := &TokenFile{path: path}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f, f.refresh()
}

// Find is the entry of a token's text. It fails closed: where the file cannot
// be read any more, no token is known.
func (f *TokenFile) Find(text string) (Token, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(); err != nil {
		return Token{}, false, err
	}
	token, found := f.tokens[envelope.DigestOf([]byte(text))]
	return token, found, nil
}

func (f *TokenFile) refresh() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	if f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return nil
	}
	list, err := readTokens(f.path)
	if err != nil {
		return err
	}
	tokens := make(map[envelope.Digest]Token, len(list))
	for _, t := range list {
		tokens[t.SHA256] = t
	}
	f.seen, f.tokens = info, tokens
	return nil
}

func readTokens(path string) ([]Token, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 || info.Size() > maxTokenFile {
		return nil, fmt.Errorf("token file %s has mode %s and %d bytes; it must be a plain file that only its owner reads (chmod 600), of at most %d bytes", path, mode, info.Size(), maxTokenFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	var list []Token
	if err := json.Unmarshal(data, &list, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("token file %s: %w", path, err)
	}
	for _, t := range list {
		if !slices.Contains(roles, t.Role) {
			return nil, fmt.Errorf("token file %s: %s has the unknown role %q", path, t.ID, t.Role)
		}
	}
	return list, nil
}

// CreateToken makes a token, adds its hash to the file (made where it is
// missing) and returns its text, which is kept nowhere. A lock beside the file
// lets one writer in at a time, so that none is lost.
func CreateToken(path, id, role string) (string, error) {
	var holder envelope.ID
	if err := holder.UnmarshalText([]byte(id)); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if !slices.Contains(roles, Role(role)) {
		return "", fmt.Errorf("token: the role %q is not known; choose one of %v", role, roles)
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	list, err := readTokens(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	list = append(list, Token{ID: holder, Role: Role(role), SHA256: envelope.DigestOf([]byte(text))})
	return text, writeTokens(path, list)
}

// lockFile waits for the lock, which the kernel takes back from who dies. The
// file stays: were it removed, two could hold locks on two files of one name.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("token file: lock %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing unlocks
}

// writeTokens replaces the file in one step, so that a crash leaves either.
func writeTokens(path string, list []Token) error {
	var data bytes.Buffer
	if err := json.MarshalWrite(&data, list, jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".tokens-*") // mode 0600
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	_, err = file.Write(data.Bytes())
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("token file: %w", err), os.Remove(file.Name()))
	}
	return nil
}

// bearer is the token of an Authorization header.
func bearer(header string) (string, bool) {
	scheme, token, found := strings.Cut(header, " ")
	return token, found && strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(token, tokenPrefix) && len(token) < 100
}
