package notify

import (
	"context"
	"errors"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// batch is how many rows are read at once.
const batch = 100

func (r *receiver) cursor() string { return "notify/" + r.name }

// follow sends the next events of the log. more says that there may be others.
func (n *Notifier) follow(ctx context.Context, r *receiver) (more bool, err error) {
	var messages []Message
	var seqs []int64 // of the messages
	var next int64
	err = n.store.View(ctx, func(s workflow.Reader) error {
		messages, seqs = nil, nil
		if next, err = s.Cursor(r.cursor()); err != nil {
			return err
		}
		events, err := s.Events(next, batch)
		if err != nil {
			return err
		}
		more = len(events) == batch
		c, err := n.composer(s)
		if err != nil {
			return err
		}
		for _, e := range events {
			next = e.Seq + 1
			if n.now().Sub(e.Event.Time.Std()) > n.giveUp || r.wants != nil && !r.wants[e.Event.Type] {
				continue
			}
			m, ok, err := compose(c, s, e)
			if err != nil {
				return err
			}
			if ok {
				messages, seqs = append(messages, m), append(seqs, e.Seq)
			}
		}
		if len(events) == 0 {
			next = 0
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for i, m := range messages {
		if err := n.deliver(ctx, r, m); err != nil {
			return false, err
		}
		if err := n.put(ctx, r, r.cursor(), seqs[i]+1); err != nil {
			return false, err
		}
	}
	if next == 0 || len(seqs) > 0 && seqs[len(seqs)-1]+1 == next {
		return more, nil
	}
	return more, n.put(ctx, r, r.cursor(), next)
}

func compose(c composer, s workflow.Reader, e workflow.StoredEvent) (Message, bool, error) {
	if e.Event.UpgradeID == "" {
		m, ok := c.event(e.Event, nil)
		return m, ok, nil
	}
	u, err := s.Upgrade(e.Event.UpgradeID)
	if errors.Is(err, workflow.ErrNotFound) {
		m, ok := c.event(e.Event, nil)
		return m, ok, nil
	}
	m, ok := c.event(e.Event, &u)
	return m, ok, err
}

// composer reads who the approvers are now.
func (n *Notifier) composer(s workflow.Reader) (composer, error) {
	c := composer{link: n.link}
	entries, err := s.Registry()
	if err != nil || len(entries) == 0 {
		return c, err
	}
	doc, err := keyregistry.ParseDocument(entries[len(entries)-1].Document)
	if err != nil {
		return c, err
	}
	for i := range doc.Approvers {
		c.approvers = append(c.approvers, doc.Approvers[i].ID)
	}
	return c, nil
}

// waitingStates are those in which an upgrade can still expire.
var waitingStates = []workflow.State{workflow.StateDraft, workflow.StatePaused, workflow.StatePendingApproval, workflow.StateQuorumReached}

// lead is how long before its expiry an upgrade is warned of: a day, or half of
// its life where that is less.
func lead(u *workflow.Upgrade) int64 {
	const day = int64(24 * time.Hour / time.Second)
	return min(day, u.ExpiresAt.Sub(u.CreatedAt)/2)
}

// warn tells those whose seats wait that an upgrade expires soon, once each.
func (n *Notifier) warn(ctx context.Context, r *receiver) error {
	if r.wants != nil && !r.wants[ExpiryWarning] {
		return nil
	}
	due, kernel, err := n.expiring(ctx, r)
	if err != nil {
		return err
	}
	for i := range due {
		u := &due[i]
		seats, err := n.seats(ctx, u.ID)
		if err != nil {
			return err
		}
		var waiting []envelope.ID
		for _, s := range seats {
			if s.Status != upgrade.SeatApproved && s.Status != upgrade.SeatRejected {
				waiting = append(waiting, s.Person)
			}
		}
		if len(waiting) > 0 {
			c := composer{link: n.link}
			if err := n.deliver(ctx, r, c.expiry(kernel, u, waiting, envelope.TimeOf(n.now()))); err != nil {
				return err
			}
		}
		if err := n.put(ctx, r, r.warned(u.ID), 1); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) warned(id envelope.UUID) string { return r.cursor() + "/expiry/" + string(id) }

// expiring are the upgrades that this receiver was not warned of and that
// expire within their lead.
func (n *Notifier) expiring(ctx context.Context, r *receiver) (due []workflow.Upgrade, kernel envelope.ID, err error) {
	now := envelope.TimeOf(n.now())
	err = n.store.View(ctx, func(s workflow.Reader) error {
		due = nil
		first, err := s.Events(0, 1)
		if err != nil || len(first) == 0 {
			return err
		}
		kernel = first[0].Event.KernelID
		page := workflow.Page{States: waitingStates, Limit: batch}
		for {
			list, next, err := s.Upgrades(page)
			if err != nil {
				return err
			}
			for _, u := range list {
				if left := u.ExpiresAt.Sub(now); left < 0 || left > lead(&u) {
					continue
				}
				told, err := s.Cursor(r.warned(u.ID))
				if err != nil {
					return err
				}
				if told == 0 {
					due = append(due, u)
				}
			}
			if next == "" {
				return nil
			}
			page.Cursor = next
		}
	})
	return due, kernel, err
}
