package storagetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

func accountsAndSecrets(t *testing.T, open Open) {
	ctx, now := context.Background(), time.Unix(1_800_000_000, 0)
	s := open.at(t, func() time.Time { return now })
	if _, err := s.Account(ctx, "ryan"); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("an account nobody made: %v", err)
	}
	for _, role := range []string{"approver", "auditor"} {
		if err := s.ChangeAccount(ctx, "ryan", "", as(role)); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(a *account.Account, exists bool) error {
		if !exists || a.Role != "auditor" {
			t.Errorf("%+v is given, exists %t", a, exists)
		}
		a.Role = "operator"
		return context.Canceled
	}
	if err := s.ChangeAccount(ctx, "ryan", "", refuse); !errors.Is(err, context.Canceled) {
		t.Errorf("a change that was given up: %v", err)
	}
	if err := s.ChangeAccount(ctx, "ryan", "no-such-invitation", as("operator")); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("a change on an invitation that nobody made: %v", err)
	}
	if list, err := s.Accounts(ctx); err != nil || len(list) != 1 || list[0].Role != "auditor" {
		t.Fatalf("accounts: %v, %v", list, err)
	}
	_, hash := account.NewSecret()
	if err := s.PutSecret(ctx, account.Invitation, hash, "ryan", []byte("ryan"), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Secret(ctx, account.Session, hash); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("an invitation opened a session: %v", err)
	}
	if err := s.PutSecret(ctx, account.Session, hash, "ryan", []byte("x"), now.Add(time.Minute)); !errors.Is(err, account.ErrOtherKind) {
		t.Fatalf("a session under an invitation's hash: %v", err)
	}
	if body, _, err := s.Secret(ctx, account.Invitation, hash); err != nil || !bytes.Equal(body, []byte("ryan")) {
		t.Fatalf("secret: %q, %v", body, err)
	}
	if got := takers(ctx, s, hash); got != 1 {
		t.Fatalf("%d of 8 took one invitation", got)
	}
	if err := s.PutSecret(ctx, account.Session, hash, "ryan", []byte("x"), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, _, err := s.Secret(ctx, account.Session, hash); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("a session at its end: %v", err)
	}
	closed(t, s, now)
}

// closed: with an account go its sessions and its links, and nobody else's, so
// that none of them lives again when the person is let in anew.
func closed(t *testing.T, s Store, now time.Time) {
	ctx := context.Background()
	kinds := map[account.Kind]string{}
	for _, kind := range []account.Kind{account.Invitation, account.Session} {
		_, kinds[kind] = account.NewSecret()
		if err := s.PutSecret(ctx, kind, kinds[kind], "ryan", []byte("x"), now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	_, others := account.NewSecret()
	if err := s.PutSecret(ctx, account.Session, others, "ana", []byte("x"), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := s.DropAccount(ctx, "ryan"); err != nil {
		t.Fatal(err)
	}
	if err := s.ChangeAccount(ctx, "ryan", kinds[account.Invitation], as("approver")); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("a link of a closed account: %v", err)
	}
	if _, err := s.Account(ctx, "ryan"); !errors.Is(err, workflow.ErrNotFound) {
		t.Errorf("a closed account: %v", err)
	}
	for kind, hash := range kinds {
		if _, _, err := s.Secret(ctx, kind, hash); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("a %s of a closed account: %v", kind, err)
		}
	}
	if _, _, err := s.Secret(ctx, account.Session, others); err != nil {
		t.Errorf("somebody else's session: %v", err)
	}
}

func as(role string) func(*account.Account, bool) error {
	return func(a *account.Account, _ bool) error {
		a.Role, a.Passkeys = role, []byte("[]")
		return nil
	}
}

func takers(ctx context.Context, s Store, hash string) int {
	var group sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		group.Go(func() {
			if _, err := s.TakeSecret(ctx, account.Invitation, hash); err == nil {
				mu.Lock()
				defer mu.Unlock()
				taken++
			}
		})
	}
	group.Wait()
	return taken
}
