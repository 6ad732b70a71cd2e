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
		if err := s.PutAccount(ctx, account.Account{Person: "ryan", Role: role, Passkeys: []byte("[]")}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Accounts(ctx); err != nil || len(list) != 1 || list[0].Role != "auditor" {
		t.Fatalf("accounts: %v, %v", list, err)
	}
	_, hash := account.NewSecret()
	if err := s.PutSecret(ctx, account.Invitation, hash, []byte("ryan"), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Secret(ctx, account.Session, hash); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("an invitation opened a session: %v", err)
	}
	if body, _, err := s.Secret(ctx, account.Invitation, hash); err != nil || !bytes.Equal(body, []byte("ryan")) {
		t.Fatalf("secret: %q, %v", body, err)
	}
	if got := takers(ctx, s, hash); got != 1 {
		t.Fatalf("%d of 8 took one invitation", got)
	}
	if err := s.PutSecret(ctx, account.Session, hash, []byte("x"), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, _, err := s.Secret(ctx, account.Session, hash); !errors.Is(err, workflow.ErrNotFound) {
		t.Fatalf("a session at its end: %v", err)
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
