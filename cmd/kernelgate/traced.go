package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// What the engine calls, with a span for each call that may take long.

type tracedStore struct {
	store
	tracer
}

func (s tracedStore) Update(ctx context.Context, f func(workflow.Tx) error) error {
	return s.span(ctx, "store update", func(ctx context.Context) error { return s.store.Update(ctx, f) })
}

type tracedDeployer struct {
	workflow.Deployer
	tracer
}

func (d tracedDeployer) Apply(ctx context.Context, c workflow.Change) error {
	return d.span(ctx, "deploy", func(ctx context.Context) error { return d.Deployer.Apply(ctx, c) },
		attribute.String("target", string(c.Target.Name)), attribute.String("upgrade", string(c.UpgradeID)))
}

type tracedGuard struct {
	workflow.Guard
	tracer
}

// called is a call of the guard with an answer.
func called[A any](ctx context.Context, t tracer, name string, f func(context.Context) (A, error)) (a A, err error) {
	err = t.span(ctx, "guard "+name, func(ctx context.Context) error {
		a, err = f(ctx)
		return err
	})
	return a, err
}

func (g tracedGuard) AcceptRegistry(ctx context.Context, entry keyregistry.SignedDocument) error {
	return g.span(ctx, "guard registry", func(ctx context.Context) error { return g.Guard.AcceptRegistry(ctx, entry) })
}

func (g tracedGuard) Suspend(ctx context.Context, env envelope.Envelope) error {
	return g.span(ctx, "guard suspend", func(ctx context.Context) error { return g.Guard.Suspend(ctx, env) })
}

func (g tracedGuard) DelegateEventKey(ctx context.Context, key []byte, instance string, notBefore, notAfter envelope.Time) (envelope.Envelope, error) {
	return called(ctx, g.tracer, "delegate", func(ctx context.Context) (envelope.Envelope, error) {
		return g.Guard.DelegateEventKey(ctx, key, instance, notBefore, notAfter)
	})
}

func (g tracedGuard) SignCheckpoint(ctx context.Context, size int64, root tlog.Hash, consistency [][]byte) (string, error) {
	return called(ctx, g.tracer, "checkpoint", func(ctx context.Context) (string, error) { return g.Guard.SignCheckpoint(ctx, size, root, consistency) })
}

func (g tracedGuard) SignRecord(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	return called(ctx, g.tracer, "record", func(ctx context.Context) (envelope.Envelope, error) { return g.Guard.SignRecord(ctx, b, proof) })
}

func (g tracedGuard) SignRatification(ctx context.Context, b upgrade.QuorumBundle, proof workflow.LogProof) (envelope.Envelope, error) {
	return called(ctx, g.tracer, "ratification", func(ctx context.Context) (envelope.Envelope, error) { return g.Guard.SignRatification(ctx, b, proof) })
}

func (g tracedGuard) SignRollback(ctx context.Context, m upgrade.Manifest, proof *workflow.LogProof) (envelope.Envelope, error) {
	return called(ctx, g.tracer, "rollback", func(ctx context.Context) (envelope.Envelope, error) { return g.Guard.SignRollback(ctx, m, proof) })
}

func (g tracedGuard) Outcome(ctx context.Context, proof workflow.LogProof) error {
	return g.span(ctx, "guard outcome", func(ctx context.Context) error { return g.Guard.Outcome(ctx, proof) })
}
