package workflow

import (
	"context"
	"errors"
	"fmt"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// What is handed to the guard is kept first, as a record of no upgrade. So
// whatever the guard has accepted can be taken over, also after a crash between
// its answer and the store's transaction: at the next start, or when the same
// entry comes again.

// AcceptRegistry takes the next registry document into force (PROTOCOL section
// 5, live): in the guard, then in the store. The one in force again is no error.
// Pending approvals count no more from then on: people sign again.
func (e *Engine) AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	now := e.now()
	digest := envelope.DigestOf(entry.Document)
	known := false
	err := e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err != nil {
			return err
		}
		last := regs.Last()
		if known = last.Digest() == digest; known {
			return nil
		}
		if _, kept, err := find(r.Record(digest)); err != nil || kept {
			return err // it was verified live when it came first
		}
		suspended, err := suspensions(r, last)
		if err != nil {
			return err
		}
		next, err := keyregistry.AcceptLive(last, e.Root, entry, suspended, now)
		if err != nil {
			return err
		}
		return e.requirePinnable(next)
	})
	if err != nil || known {
		return err
	}
	if err := e.held(ctx, KindRegistryEntry); err != nil {
		return err
	}
	body, err := envelope.Canonical(entry)
	if err != nil {
		return err
	}
	if err := e.keepFirst(ctx, Record{Digest: digest, Kind: KindRegistryEntry, Person: upgrade.KernelID, SignedAt: now, ReceivedAt: now, Body: body}); err != nil {
		return err
	}
	if err := e.Guard.AcceptRegistry(ctx, entry); err != nil {
		return errors.Join(err, e.logDenied(ctx, err))
	}
	defer e.poke()
	return e.adopt(ctx, entry)
}

func (e *Engine) keepFirst(ctx context.Context, rec Record) error {
	return e.update(ctx, func(tx Tx) error {
		_, err := tx.AddRecord(rec)
		return err
	})
}

// adopt stores what the guard has accepted, with its event, and has every
// upgrade that still counts people looked at.
func (e *Engine) adopt(ctx context.Context, entry keyregistry.SignedDocument) error {
	now := e.now()
	return e.update(ctx, func(tx Tx) error {
		regs, err := e.registries(tx)
		if err != nil {
			return err
		}
		last := regs.Last()
		if last.Digest() == envelope.DigestOf(entry.Document) {
			return nil
		}
		next, err := keyregistry.Accept(last, e.Root, entry)
		if err != nil {
			return err
		}
		if err := tx.AddRegistry(next.Version(), entry); err != nil {
			return err
		}
		if _, err := tx.AppendEvent(EventDraft{Type: auditlog.RegistryUpdated, Actor: upgrade.KernelID, Data: auditlog.Data{
			auditlog.DataRecordDigest: next.Digest().String(), "version": next.Version()}}); err != nil {
			return err
		}
		return tx.Wake(now, counting)
	})
}

// Suspend takes a key out of use at once: in the guard, then in the store. The
// same suspension again is no error.
func (e *Engine) Suspend(ctx context.Context, env envelope.Envelope) error {
	if err := env.Check(); err != nil {
		return err
	}
	now := e.now()
	s, err := e.suspension(ctx, env, now)
	if err != nil || s == nil {
		return err
	}
	rec := Record{Digest: env.PayloadDigest(), Kind: KindSuspension, Person: s.IssuedBy, SignedAt: s.SuspendedAt, ReceivedAt: now, Body: env.Bytes()}
	if err := e.keepFirst(ctx, rec); err != nil {
		return err
	}
	if err := e.Guard.Suspend(ctx, env); err != nil {
		return errors.Join(err, e.logDenied(ctx, err))
	}
	defer e.poke()
	return e.adoptSuspension(ctx, env, s)
}

// suspension verifies one that is not known; nil where it is.
func (e *Engine) suspension(ctx context.Context, env envelope.Envelope, now envelope.Time) (s *keyregistry.Suspension, err error) {
	err = e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err != nil {
			return err
		}
		known, err := isSuspended(r, regs.Last(), env)
		if err != nil || known {
			return err
		}
		suspended, err := suspensions(r, regs.Last())
		if err != nil {
			return err
		}
		s, err = regs.Last().AcceptSuspension(env, suspended, now)
		return err
	})
	return s, err
}

func isSuspended(r Reader, reg *keyregistry.Registry, env envelope.Envelope) (bool, error) {
	list, err := r.Suspensions(reg.Digest())
	for _, old := range list {
		if old.PayloadDigest() == env.PayloadDigest() {
			return true, nil
		}
	}
	return false, err
}

func (e *Engine) adoptSuspension(ctx context.Context, env envelope.Envelope, s *keyregistry.Suspension) error {
	now := e.now()
	return e.update(ctx, func(tx Tx) error {
		regs, err := e.registries(tx)
		if err != nil {
			return err
		}
		if regs.Last().Digest() != s.RegistryDigest {
			return fmt.Errorf("%w: the registry document that the suspension names is not in force any more", ErrConflict)
		}
		if known, err := isSuspended(tx, regs.Last(), env); err != nil || known {
			return err
		}
		if err := tx.AddSuspension(env, s.RegistryDigest); err != nil {
			return err
		}
		if _, err := tx.AppendEvent(EventDraft{Type: auditlog.RegistryKeySuspended, Actor: s.IssuedBy, Data: auditlog.Data{
			auditlog.DataRecordDigest: env.PayloadDigest().String(), "suspendedKeyId": string(s.SuspendedKeyID)}}); err != nil {
			return err
		}
		return tx.Wake(now, counting)
	})
}

// logDenied logs a refusal of the guard that is about no upgrade.
func (e *Engine) logDenied(ctx context.Context, cause error) error {
	class := failure.ClassOf(cause)
	if class == "" {
		return nil
	}
	return e.update(ctx, func(tx Tx) error {
		_, err := tx.AppendEvent(EventDraft{Type: auditlog.GuardDenied, Actor: upgrade.KernelID, Data: auditlog.Data{"class": string(class)}})
		return err
	})
}

// heal takes over what the guard has accepted and the store has not: the
// registry document that the guard names, and suspensions, which are told to
// it again. It looks once a minute.
func (e *Engine) heal(ctx context.Context) error {
	now := e.now()
	if d := now.Sub(e.healedAt); d >= 0 && d < healEvery {
		return nil
	}
	e.healedAt = now.Add(healRetry - healEvery)
	call, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	status, err := e.Guard.Status(call)
	if err != nil {
		return err
	}
	var entry *keyregistry.SignedDocument
	var pending []Record
	err = e.Store.View(ctx, func(r Reader) error {
		regs, err := e.registries(r)
		if err != nil {
			return err
		}
		if status.RegistryVersion > regs.Last().Version() {
			rec, err := r.Record(status.RegistryDigest)
			if err != nil {
				return fmt.Errorf("the guard has registry version %d, which this gateway never saw; restore its store, or publish that version here: %w", status.RegistryVersion, err)
			}
			entry = new(keyregistry.SignedDocument)
			return envelope.DecodeCanonical(rec.Body, upgrade.MaxBundle, entry)
		}
		pending, err = r.Records("")
		return err
	})
	if err == nil && entry != nil {
		err = e.adopt(ctx, *entry)
	}
	for _, rec := range pending {
		if rec.Kind == KindSuspension && err == nil {
			err = e.healSuspension(ctx, rec)
		}
	}
	if err == nil {
		e.healedAt = now
	}
	return err
}

// healSuspension finishes a suspension that was kept. One that the guard
// refuses, or of an earlier registry document, stays as it is.
func (e *Engine) healSuspension(ctx context.Context, rec Record) error {
	env, err := envelope.Parse(rec.Body)
	if err != nil {
		return err
	}
	s, err := e.suspension(ctx, env, e.now())
	if err == nil && s != nil {
		if err = e.Guard.Suspend(ctx, env); err == nil {
			err = e.adoptSuspension(ctx, env, s)
		}
	}
	if failure.ClassOf(err) != "" || errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}
