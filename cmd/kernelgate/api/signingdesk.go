package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/account"
	"github.com/kernelgate/kernelgate/workflow"
)

const (
	// signingLife is how long a request waits for its person.
	signingLife = 15 * time.Minute
	// maxSigning bounds what one person keeps, ended ones included.
	maxSigning = 8
	// An agent is there for presentFor after its stream last said so.
	presentFor   = 25 * time.Second
	presentEvery = 10 * time.Second
)

// The kinds under which the store keeps a person's requests and agent.
const (
	kindSigning account.Kind = "signing-requests"
	kindAgent   account.Kind = "agent"
)

// SigningStore keeps short-lived rows that all replicas share; account.Store is one.
type SigningStore interface {
	PutSecret(ctx context.Context, kind account.Kind, hash string, person envelope.ID, body []byte, until time.Time) error
	ChangeSecret(ctx context.Context, kind account.Kind, hash string, person envelope.ID, until time.Time, f func(body []byte) ([]byte, error)) error
	Secret(ctx context.Context, kind account.Kind, hash string) (body []byte, until time.Time, err error)
}

// desk holds what people asked their own machines to sign. It carries wishes,
// never authority: the agent trusts nothing of them but which upgrade to look at.
// A person's requests are one row, which replicas change one after the other.
type desk struct {
	store  SigningStore
	agents atomic.Int32 // streams that are open here
	mu     sync.Mutex
	woken  chan struct{} // closed when a request of anyone changed here
}

func newDesk(store SigningStore) *desk { return &desk{store: store, woken: make(chan struct{})} }

// rowOf is the name of a person's row: the store has one row by each name,
// whatever the kind.
func rowOf(kind account.Kind, who envelope.ID) string {
	return account.Hash(string(kind) + "/" + string(who))
}

// list is a person's requests that have not expired, oldest first.
func (d *desk) list(ctx context.Context, who envelope.ID) ([]SigningRequest, error) {
	body, _, err := d.store.Secret(ctx, kindSigning, rowOf(kindSigning, who))
	if errors.Is(err, workflow.ErrNotFound) {
		body, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	return requestsIn(body, who)
}

// requestsIn are those of a person's row that have not expired.
func requestsIn(body []byte, who envelope.ID) ([]SigningRequest, error) {
	all := []SigningRequest{}
	if body == nil {
		return all, nil
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("signing requests of %s: %w", who, err)
	}
	now := envelope.TimeOf(time.Now()).String()
	return slices.DeleteFunc(all, func(r SigningRequest) bool { return r.ExpiresAt <= now }), nil // texts of one length sort as times
}

// change applies f to a person's list and keeps what it returns.
func (d *desk) change(ctx context.Context, who envelope.ID, f func([]SigningRequest) ([]SigningRequest, error)) error {
	err := d.store.ChangeSecret(ctx, kindSigning, rowOf(kindSigning, who), who, time.Now().Add(signingLife), func(body []byte) ([]byte, error) {
		all, err := requestsIn(body, who)
		if err != nil {
			return nil, err
		}
		if all, err = f(all); err != nil {
			return nil, err
		}
		return json.Marshal(all)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.woken)
	d.woken = make(chan struct{})
	return nil
}

// changed closes when a request changes in this process.
func (d *desk) changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.woken
}

// ask adds a request. One on the same upgrade goes, and so do the oldest that
// have ended, where there are too many.
func (d *desk) ask(ctx context.Context, who envelope.ID, wish NewSigningRequest) (SigningRequest, error) {
	now := time.Now()
	r := SigningRequest{
		Id: uuid.NewString(), UpgradeId: wish.UpgradeId, Decision: wish.Decision, Reason: wish.Reason, Notes: wish.Notes, Tests: wish.Tests,
		PreapproveRollback: wish.PreapproveRollback, State: SigningWaiting,
		CreatedAt: envelope.TimeOf(now).String(), ExpiresAt: envelope.TimeOf(now.Add(signingLife)).String(),
	}
	err := d.change(ctx, who, func(all []SigningRequest) ([]SigningRequest, error) {
		all = slices.DeleteFunc(all, func(old SigningRequest) bool { return old.UpgradeId == r.UpgradeId })
		for len(all) >= maxSigning {
			ended := slices.IndexFunc(all, func(old SigningRequest) bool { return !pending(old.State) })
			if ended < 0 {
				return nil, refuse(http.StatusConflict, CodeConflict, "%d requests wait for you already: answer them at your machine, or withdraw one", maxSigning)
			}
			all = slices.Delete(all, ended, ended+1)
		}
		return append(all, r), nil
	})
	return r, err
}

// report notes what became of a request. One that has ended stays as it is;
// the same report again is no error.
func (d *desk) report(ctx context.Context, who envelope.ID, id string, report SigningReport) (r SigningRequest, err error) {
	err = d.change(ctx, who, func(all []SigningRequest) ([]SigningRequest, error) {
		i := slices.IndexFunc(all, func(old SigningRequest) bool { return old.Id == id })
		if i < 0 {
			return nil, workflow.ErrNotFound
		}
		if !pending(all[i].State) && all[i].State != report.State {
			return nil, refuse(http.StatusConflict, CodeConflict, "the request is %s already", all[i].State)
		}
		all[i].State, all[i].Detail = report.State, report.Detail
		r = all[i]
		return all, nil
	})
	return r, err
}

// pending: a person may still answer it.
func pending(s SigningState) bool { return s == SigningWaiting || s == SigningShown }

// present notes that an agent of this person is there, or has left.
func (d *desk) present(ctx context.Context, who envelope.ID, is bool) error {
	until := time.Now()
	if is {
		until = until.Add(presentFor)
	}
	return d.store.PutSecret(ctx, kindAgent, rowOf(kindAgent, who), who, []byte("{}"), until)
}

func (d *desk) isPresent(ctx context.Context, who envelope.ID) (bool, error) {
	_, _, err := d.store.Secret(ctx, kindAgent, rowOf(kindAgent, who))
	if errors.Is(err, workflow.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
