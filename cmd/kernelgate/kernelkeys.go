package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/open"
	"github.com/kernelgate/kernelgate/workflow/guard"
)

// kernelKeys are the Kernel's keys, opened. The process ends when a PIN is
// refused, or when a device does not return.
type kernelKeys struct{ records, audit signer.Signer }

func (k kernelKeys) close() {
	_ = k.records.Close() // the process ends
	_ = k.audit.Close()
}

func openKernelKeys(ctx context.Context, c *Config, log *slog.Logger) (k kernelKeys, err error) {
	if k.records, err = openKey(ctx, c, "guard.recordsKey", c.Guard.RecordsKey, log); err != nil {
		return k, err
	}
	if k.audit, err = openKey(ctx, c, "guard.auditKey", c.Guard.AuditKey, log); err != nil {
		return k, errors.Join(err, k.records.Close())
	}
	return k, nil
}

func openKey(ctx context.Context, c *Config, name, uri string, log *slog.Logger) (signer.Signer, error) {
	s, err := open.Open(ctx, uri, open.Options{CallTimeout: c.Guard.CallTimeout, Inline: true, OnStuck: func() {
		log.Error("a call into the key's device does not return; the guard ends, to be started again", "key", name)
		os.Exit(guard.ExitStuck)
	}})
	if err != nil {
		return nil, pinExit(fmt.Errorf("%s: %w", name, err))
	}
	return pinWatch{s, func(err error) {
		log.Error("a PIN was refused; the guard ends and must not be started again before the PIN is right", "key", name, "err", err)
		os.Exit(guard.ExitPIN)
	}}, nil
}

// pinExit gives an error that tells of a refused PIN the exit code that says so.
func pinExit(err error) error {
	if errors.Is(err, signer.ErrPIN) {
		return &exitError{guard.ExitPIN, err}
	}
	return err
}

// pinWatch ends the process when a PIN is refused later on, at a login after a
// token came back.
type pinWatch struct {
	signer.Signer
	end func(error)
}

func (p pinWatch) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := p.Signer.Sign(ctx, message)
	if errors.Is(err, signer.ErrPIN) {
		p.end(err)
	}
	return sig, err
}
