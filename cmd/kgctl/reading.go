package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/client"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// reading is one upgrade as the gateway shows it, and what of it verifies here.
type reading struct {
	detail    client.UpgradeDetail
	envelope  envelope.Envelope // the manifest's
	manifest  *upgrade.Manifest // verified: proposed by who it says
	digest    envelope.Digest   // of the manifest, computed here
	tests     map[string]upgrade.TestResult
	decisions []upgrade.Decision
	count     upgrade.Count
	policy    *upgrade.PolicyDecision // the gateway's word; nil before the first
}

func (r *reading) state() client.State { return r.detail.Upgrade.State }

// open reports whether people's records still change the upgrade; those about
// an emergency that was applied ratify it.
func (r *reading) open() bool {
	return slices.Contains([]client.State{client.Draft, client.Paused, client.PendingApproval, client.QuorumReached, client.EmergencyApplied}, r.state())
}

// read fetches an upgrade and verifies it as of now, by the registry in force,
// as who signs about it must.
func (a *app) read(ctx context.Context, s *session, id envelope.UUID) (*reading, error) {
	r, err := a.fetch(ctx, s, id)
	if err != nil {
		return nil, err
	}
	if r.manifest, err = upgrade.VerifyManifest(s.registry(), r.envelope, a.time()); err != nil {
		return nil, fmt.Errorf("the manifest of %s: %w", id, err)
	}
	return r, a.judge(s, r)
}

// look is read for who only looks: the proposer's key may have left the
// registry since, so any document of the chain will do.
func (a *app) look(ctx context.Context, s *session, id envelope.UUID) (*reading, error) {
	r, err := a.fetch(ctx, s, id)
	if err != nil {
		return nil, err
	}
	claim, err := upgrade.OpenManifest(r.envelope)
	if err != nil {
		return nil, fmt.Errorf("the manifest of %s: %w", id, err)
	}
	for _, reg := range slices.Backward(s.regs) {
		if r.manifest, err = upgrade.VerifyManifest(reg, r.envelope, claim.Timestamp); err == nil {
			return r, a.judge(s, r)
		}
	}
	return nil, fmt.Errorf("the manifest of %s: %w", id, err)
}

func (a *app) fetch(ctx context.Context, s *session, id envelope.UUID) (*reading, error) {
	detail, err := s.Upgrade(ctx, id)
	if err != nil {
		return nil, unknownUpgrade(id, err)
	}
	r := &reading{detail: detail, tests: map[string]upgrade.TestResult{}}
	i := slices.IndexFunc(detail.Records, func(rec client.Record) bool { return rec.Kind == workflow.KindManifest })
	if i < 0 {
		return nil, failure.New(failure.PayloadMalformed, "the gateway shows upgrade %s without a manifest", id)
	}
	if r.envelope, err = envelope.Parse(detail.Records[i].Body); err != nil {
		return nil, fmt.Errorf("the manifest of %s: %w", id, err)
	}
	r.digest = r.envelope.PayloadDigest()
	m, err := upgrade.OpenManifest(r.envelope)
	if err != nil {
		return nil, fmt.Errorf("the manifest of %s: %w", id, err)
	}
	u := detail.Upgrade
	if m.UpgradeID != id || u.Id != string(id) || u.ManifestDigest != r.digest.String() || u.Target != string(m.Target.Name) || u.Type != string(m.Type) {
		return nil, failure.New(failure.BindingMismatch, "what the gateway says of upgrade %s is not what its manifest says", id)
	}
	return r, nil
}

// unknownUpgrade says what to do where the gateway does not know an upgrade.
func unknownUpgrade(id envelope.UUID, err error) error {
	var problem *client.Error
	if errors.As(err, &problem) && problem.Code == "not_found" {
		return fmt.Errorf("this gateway has no upgrade %s; kgctl upgrade list shows those that it has (%w)", id, err)
	}
	return err
}

// judge verifies the other records. One that does not verify counts nowhere.
func (a *app) judge(s *session, r *reading) error {
	now := a.time()
	for _, rec := range r.detail.Records {
		if rec.Kind == workflow.KindPolicyDecision {
			d := new(upgrade.PolicyDecision)
			if err := envelope.DecodeCanonical(rec.Body, envelope.MaxWire, d); err != nil {
				return fmt.Errorf("the policy decision: %w", err)
			}
			if d.ManifestDigest == r.digest {
				r.policy = d
			}
			continue
		}
		env, err := envelope.Parse(rec.Body)
		if err != nil {
			continue // of a kind that is no envelope
		}
		switch rec.Kind {
		case workflow.KindTestResult:
			t, err := upgrade.VerifyTestResult(s.registry(), env, r.manifest.PatchHash, now)
			if err == nil && !s.suspended[env.Signatures[0].KeyID] {
				r.tests[t.Name] = *t
			}
		case workflow.KindApproval:
			r.addApproval(s, env)
		case workflow.KindRejection:
			if d, err := upgrade.VerifyRejection(s.registry(), r.manifest, r.digest, env, now); err == nil {
				r.decisions = append(r.decisions, upgrade.Decision{Person: d.ApproverID, Rejected: true, SignedAt: d.RejectionTs, Envelope: env})
			}
		}
	}
	reg, at, suspended := s.registry(), now, s.suspended
	if b := r.decided(); b != nil {
		found, err := s.regs.Find(b.Quorum.RegistryDigest)
		if err != nil {
			return fmt.Errorf("the quorum bundle: %w", err)
		}
		reg, at, suspended = found, b.Quorum.DecidedAt, nil
	}
	r.count = upgrade.Tally(reg, r.manifest, r.digest, r.decisions, func(id envelope.KeyID) bool { return suspended[id] }, at)
	return nil
}

// addApproval takes up one that verified when it was signed, under any document
// of the chain. Where it does not count any more, the tally says why.
func (r *reading) addApproval(s *session, env envelope.Envelope) {
	var claim upgrade.Approval
	if envelope.DecodeCanonical(env.Payload, envelope.MaxPayload, &claim) != nil {
		return
	}
	for _, reg := range slices.Backward(s.regs) {
		if d, err := upgrade.VerifyApproval(reg, r.manifest, r.digest, env, claim.ApprovalTs); err == nil {
			r.decisions = append(r.decisions, upgrade.Decision{Person: d.ApproverID, SignedAt: d.ApprovalTs, Envelope: env})
			return
		}
	}
}

// decided is the newest bundle that a quorum of the upgrade's own decided, once
// people's records change nothing any more; nil where there is none. Who counted
// then is shown, not who would count today.
func (r *reading) decided() (newest *upgrade.QuorumBundle) {
	if r.open() {
		return nil
	}
	for _, rec := range r.detail.Records {
		if rec.Kind != workflow.KindQuorumBundle && rec.Kind != workflow.KindRatificationBundle {
			continue
		}
		if b, err := upgrade.ParseQuorumBundle(rec.Body); err == nil && len(b.Approvals) > 0 {
			newest = b
		}
	}
	return newest
}

// same refuses where anything that a signer was shown has changed since.
// Approvals of others may come in: they change nothing of it.
func (r *reading) same(s *session, later *reading, laterSession *session) error {
	switch {
	case s.registry().Digest() != laterSession.registry().Digest():
		return fmt.Errorf("%w: registry version %d came into force; read it all again", errChanged, laterSession.registry().Version())
	case r.digest != later.digest:
		return fmt.Errorf("%w: the gateway shows another manifest than before", errChanged)
	case r.state() != later.state():
		return fmt.Errorf("%w: the upgrade was %s, and is %s now", errChanged, r.state(), later.state())
	case policyText(r.policy) != policyText(later.policy):
		return fmt.Errorf("%w: the policy says now: %s", errChanged, policyText(later.policy))
	case testText(r) != testText(later):
		return fmt.Errorf("%w: the tests are now: %s", errChanged, testText(later))
	}
	return nil
}
