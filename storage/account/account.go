// Package account is what CommandPad's sign-in keeps: who has which passkeys,
// and short-lived secrets, of which only hashes are stored. None of it gives
// authority over upgrades; that is in signatures alone.
package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// Account is one person who may sign in.
type Account struct {
	Person   envelope.ID
	Role     string
	Passkeys []byte // JSON, as the WebAuthn library keeps credentials
}

// Kind is what a secret opens.
type Kind string

// The kinds of secrets.
const (
	Invitation Kind = "invitation" // enrols a passkey, once
	Ceremony   Kind = "ceremony"   // one WebAuthn exchange under way
	Session    Kind = "session"    // signed in
	OIDC       Kind = "oidc"       // a browser is away at the identity provider
)

// Store keeps accounts and secrets; all replicas share one. What is not there,
// or is past its end, is workflow.ErrNotFound.
type Store interface {
	Account(ctx context.Context, person envelope.ID) (Account, error)
	Accounts(ctx context.Context) ([]Account, error)
	// ChangeAccount stores what f makes of a person's account, in one
	// transaction: what others did before is seen, and what they do waits. Where
	// there is none, f is given an empty one. An error, f's too, changes nothing.
	// The invitation of that hash is used up by it; "" for none.
	ChangeAccount(ctx context.Context, person envelope.ID, invitation string, f func(a *Account, exists bool) error) error
	// DropAccount closes an account, and with it goes every secret of that
	// person. One that is not there is no error.
	DropAccount(ctx context.Context, person envelope.ID) error
	// PutSecret stores what a secret of a kind stands for, under its hash. It is
	// a person's, or nobody's yet ("").
	// ErrOtherKind where a secret of another kind has that hash.
	PutSecret(ctx context.Context, kind Kind, hash string, person envelope.ID, body []byte, until time.Time) error
	// ChangeSecret is PutSecret of what f makes of the secret's body, nil where
	// there is none, in one transaction: of two that change one, the second is
	// given what the first made. f may be called more than once.
	ChangeSecret(ctx context.Context, kind Kind, hash string, person envelope.ID, until time.Time, f func(body []byte) ([]byte, error)) error
	Secret(ctx context.Context, kind Kind, hash string) (body []byte, until time.Time, err error)
	// TakeSecret is Secret, and it is gone: of two callers one gets it.
	TakeSecret(ctx context.Context, kind Kind, hash string) (body []byte, err error)
}

// ErrOtherKind says that what a secret would open is something else already.
var ErrOtherKind = errors.New("a secret of another kind has this hash")

// NewSecret is 256 random bits as text for a cookie or a link, and the hash
// under which they are stored. There is nothing to guess, so a plain hash does.
func NewSecret() (text, hash string) {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	text = base64.RawURLEncoding.EncodeToString(secret)
	return text, Hash(text)
}

// Hash is the stored form of a secret's text.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
